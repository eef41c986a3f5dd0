"""Synthesis: planted detectors are found, numbers are those of a literal computation, and invalid input is refused."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import interpret
from interpret import InterpretError, Objective, Robustness, Synthesised, synthesise
from interpret.analyses.synthesis import natural
from interpret.analyses.synthesis.components import components_of
from interpret.analyses.synthesis.parametrisation import (
    Colours,
    colours_of,
    decorrelating,
    first_noise,
    parametrise,
    unstretched,
)
from interpret.analyses.synthesis.redirect import redirecting
from interpret.analyses.synthesis.truth import damaged
from interpret.images.derived import DerivedImages
from interpret.images.opening import open_images
from interpret.network.pixel_scale import PixelScale

# ---- planted truth ---------------------------------------------------------------------------------------------------


class Matched(nn.Module):
    """A detector whose best image is known: k·(x − ½) − ½|x − ½|² over a window is largest at x = ½ + k."""

    def __init__(self, templates: Tensor) -> None:
        super().__init__()
        self.templates = nn.Parameter(templates)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - 0.5
        energy = F.conv2d(centred * centred, torch.ones_like(self.templates[:1]))
        return F.conv2d(centred, self.templates) - 0.5 * energy


class Ring(nn.Module):
    """Strokes of eight orientations, rectified, and summed where each touches a ring; best is ½ + the strokes' sum."""

    RADIUS, STROKE = 7, 7

    def __init__(self) -> None:
        super().__init__()
        angles = [math.pi * step / 8 for step in range(8)]
        self.strokes = nn.Parameter(torch.stack([stroke(angle, self.STROKE) for angle in angles])[:, None])
        side = 2 * self.RADIUS + 1
        places = torch.zeros(1, 8, side, side)
        for step in range(16):
            around = math.pi * step / 8
            y = round(self.RADIUS + self.RADIUS * math.sin(around))
            x = round(self.RADIUS + self.RADIUS * math.cos(around))
            places[0, (step + 4) % 8, y, x] = 0.5  # the tangent
        self.places = nn.Parameter(places)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - 0.5
        found = F.conv2d(F.relu(F.conv2d(centred, self.strokes)), self.places)
        side = 2 * self.RADIUS + self.STROKE
        return found - 0.5 * F.conv2d(centred * centred, torch.ones(1, 1, side, side))

    def best(self) -> Tensor:
        return F.conv_transpose2d(self.places, self.strokes)[0]


def grid(side: int) -> tuple[Tensor, Tensor]:
    across = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(across, across, indexing="ij")
    return y, x


def stroke(angle: float, side: int) -> Tensor:
    """A bright line on a dark ground, at this angle."""
    y, x = grid(side)
    away = -x * math.sin(angle) + y * math.cos(angle)
    return (torch.exp(-((away / 0.3) ** 2)) - 0.4) * torch.exp(-(x**2 + y**2)) * 0.5


def gabor(angle: float, side: int = 17, wavelength: float = 0.9) -> Tensor:
    y, x = grid(side)
    along = x * math.cos(angle) + y * math.sin(angle)
    return 0.4 * torch.cos(2 * math.pi * along / wavelength) * torch.exp(-2 * (x**2 + y**2))


def cross(side: int = 17) -> Tensor:
    y, x = grid(side)
    return 0.4 * ((x.abs() < 0.2) | (y.abs() < 0.2)).float() - 0.2


def colour_pair(side: int = 17) -> Tensor:
    """Orange in the middle of blue."""
    y, x = grid(side)
    middle = (x**2 + y**2 < 0.35).float()
    orange, blue = torch.tensor([0.4, 0.1, -0.3]), torch.tensor([-0.3, -0.1, 0.4])
    return orange[:, None, None] * middle + blue[:, None, None] * (1 - middle)


def planted(name: str) -> tuple[nn.Module, Tensor]:
    """A network with one detector, and the image that it is made for."""
    if name == "ring":
        return Ring(), Ring().best()
    templates = {
        "gabor": gabor(0.6)[None], "steep gabor": gabor(2.2, wavelength=0.6)[None], "cross": cross()[None],
        "colour pair": colour_pair(),
    }  # fmt: skip
    return Matched(templates[name][None]), templates[name]


@pytest.mark.parametrize("parametrisation", ["fourier", "pixels"])
@pytest.mark.parametrize("name", ["gabor", "steep gabor", "cross", "colour pair", "ring"])
def test_a_planted_detector_is_found(name: str, parametrisation: Any) -> None:
    detector, best = planted(name)
    network = nn.Sequential(detector)
    found = synthesise(network, "0", 0, size=(len(best), 48, 48), parametrisation=parametrisation, steps=80)
    assert found.inputs is not None
    assert found.inputs.shape[1:] == best.shape  # the receptive field
    correlation = np.corrcoef(found.inputs.flatten(), best.detach().flatten())[0, 1]
    assert correlation >= 0.9


# ---- what is measured ------------------------------------------------------------------------------------------------


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    )


SIZE = (3, 18, 18)
NATURAL = torch.rand(12, *SIZE, generator=torch.Generator().manual_seed(1))


def test_the_value_is_that_of_the_network() -> None:
    network = small()
    found = synthesise(network, "3", [2, 0], size=SIZE, steps=20)
    assert found.inputs is not None and found.pictures.shape == (2, 8, 8, 3)
    with torch.no_grad():
        literal = network[:4](found.inputs)
    assert literal.shape[2:] == (1, 1)
    assert found.values == pytest.approx([float(literal[0, 2]), float(literal[1, 0])], rel=1e-5)
    assert (found.curves[:, -1] > found.curves[:, 0]).all()


def test_a_neuron_at_full_size_has_the_same_image_in_what_it_sees() -> None:
    """The crop suffices: outside of the receptive field, the gradient at full size is zero."""
    network, plain = small(), {"robustness": None, "parametrisation": "pixels", "colours": None, "steps": 20}
    whole = synthesise(network, "3", 1, size=SIZE, start=NATURAL[0], **plain)
    whole_by_size = synthesise(network, Objective.neuron("3", 1) + 0 * Objective.neuron("0", 0), size=SIZE,
                               start=NATURAL[0], **plain)  # fmt: skip
    assert whole.inputs is not None and whole_by_size.inputs is not None
    # the neuron in the middle of the map of 6 × 6, and what it sees
    seen = whole_by_size.inputs[0, :, 6:14, 6:14]
    changed = (whole_by_size.inputs[0] - NATURAL[0]).abs().amax(0) > 1e-4
    assert changed[6:14, 6:14].any() and not changed[:6].any() and not changed[14:].any()
    assert not changed[:, :6].any() and not changed[:, 14:].any()
    # the start is cut from the centre, where the crop runs
    assert seen.shape == whole.inputs.shape[1:]


@pytest.mark.parametrize("kind", ["neuron", "unit", "class", "direction", "layer"])
def test_the_strongest_natural_image_is_found(kind: Any) -> None:
    network = small()
    with torch.no_grad():
        maps, scores = network[:4](NATURAL), network(NATURAL)
    weights = torch.tensor([1.0, -1.0, 0.5, 0.0])
    expected = {
        "neuron": maps[:, 2].amax(),
        "unit": maps[:, 2].mean((1, 2)).amax(),
        "class": scores[:, 2].amax(),
        "direction": torch.einsum("bchw,c->bhw", maps, weights).amax(),
        "layer": maps.square().mean((1, 2, 3)).amax(),
    }[kind]
    arguments: dict[str, Any] = {
        "direction": {"layer": "3", "directions": weights},
        "class": {"units": 2, "kind": kind},
        "layer": {"layer": "3", "kind": "layer"},
    }.get(kind, {"layer": "3", "units": 2, "kind": kind})
    found = synthesise(network, **arguments, natural=NATURAL, steps=4)
    assert found.natural_values is not None and found.shares is not None
    assert found.natural_values[0] == pytest.approx(float(expected), rel=1e-5)
    if expected > 0:
        assert found.shares[0] == pytest.approx(found.values[0] / float(expected), rel=1e-5)
    assert set(found.kept) == set(found.natural_kept) == {"jpeg", "shift", "blur"}


def test_values_of_mined_units_are_taken() -> None:
    network = small()
    mined = interpret.mine(network, NATURAL, "3", k=2)
    found = synthesise(network, "3", [0, 3], natural=mined, steps=4)
    assert found.natural_values is not None and found.natural_pictures is not None
    assert found.natural_values.tolist() == mined["3"].values[[0, 3], 0].tolist()
    patches = mined["3"].unit(3).pictures
    assert np.array_equal(found.natural_pictures[1], patches[0])


def test_what_is_kept_is_measured_on_damaged_images() -> None:
    network = small()
    found = synthesise(network, "3", 2, natural=NATURAL, steps=30, robustness=None)
    assert found.inputs is not None
    with torch.no_grad():
        literal = {
            how: np.mean([float(network[:4](one[None])[0, 2]) for one in damaged(found.inputs[0], how, 8)])
            for how in ("jpeg", "blur")
        }
    # shifts move in what is around the receptive field, and JPEG's blocks begin elsewhere
    assert found.kept["blur"][0] == pytest.approx(literal["blur"] / found.values[0], abs=0.25)
    assert all(0 < share[0] < 1.2 for share in found.kept.values())


def test_damages_are_what_they_are_called() -> None:
    pixels = torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(0))
    file = BytesIO()
    picture = (pixels * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(file, "JPEG", quality=75)
    read = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1) / 255
    assert torch.equal(damaged(pixels, "jpeg", 32)[0], read)
    down, up, right, left = damaged(pixels, "shift", 64)
    assert torch.equal(down[:, 2:], pixels[:, :-2]) and torch.equal(up[:, :-2], pixels[:, 2:])
    assert torch.equal(right[:, :, 2:], pixels[:, :, :-2]) and torch.equal(left[:, :, :-2], pixels[:, :, 2:])
    flat = damaged(torch.full((1, 20, 20), 0.3), "blur", 150)[0]
    assert torch.allclose(flat, torch.full((1, 20, 20), 0.3))
    point = torch.zeros(1, 21, 21)
    point[0, 10, 10] = 1
    spread = damaged(point, "blur", 300)[0][0]
    ratio = math.exp(-0.5 / 4)  # a Gauss curve with a deviation of two pixels
    assert float(spread[10, 11] / spread[10, 10]) == pytest.approx(ratio, rel=1e-4)
    assert len(damaged(torch.rand(5, 9, 9), "jpeg", 9)[0]) == 5


def test_images_that_lose_to_natural_ones_are_marked() -> None:
    found = synthesise(small(), "3", [0, 1], natural=NATURAL, steps=1)
    assert found.beats_natural is not None and not found.beats_natural.any()
    assert synthesise(small(), "3", [0], natural=NATURAL, steps=60).beats_natural.all()  # type: ignore[union-attr]


def test_distances_to_natural_images_tell_noise() -> None:
    ramp = torch.linspace(0, 1, 30)[None, None, :, None].expand(40, 3, 30, 30)
    natural = (ramp * torch.rand(40, 3, 1, 1, generator=torch.Generator().manual_seed(0))).contiguous()
    noise = torch.rand(3, 30, 30, generator=torch.Generator().manual_seed(1))
    same = {"natural": natural, "steps": 1, "rate": 1e-6, "robustness": None}
    near = synthesise(small_convolutions(), "2", 0, kind="unit", start=natural[3], **same)
    far = synthesise(small_convolutions(), "2", 0, kind="unit", start=noise, **same)
    assert near.distances is not None and far.distances is not None
    assert near.distances[0] < 3 < far.distances[0] and near.distance_layers == ["0", "2"]


def small_convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))


# ---- objectives ------------------------------------------------------------------------------------------------------


def test_objectives_add_and_subtract() -> None:
    network, image = small(), NATURAL[:1]
    with torch.no_grad():
        first, second = network[:1](image)[0], network[:4](image)[0]
    objective = 2 * Objective.unit("0", 1) - Objective.neuron("3", 2) + Objective.layer("3") * 0.5
    objective = objective - Objective.direction("3", [1, 0, 0, 2], everywhere=True)
    literal = 2 * first[1].mean() - second[2, 3, 3] + 0.5 * second.square().mean()
    literal = literal - second[0].mean() - 2 * second[3].mean()
    found = synthesise(network, objective, start=image, steps=1, rate=1e-9, robustness=None, parametrisation="pixels",
                       colours=None)  # fmt: skip
    assert found.inputs is not None and torch.allclose(found.inputs, image, atol=1e-5)
    assert found.values[0] == pytest.approx(float(literal), abs=1e-4)
    assert found.names == [
        "2·unit 1 of 0 − neuron 2 of 3 + 0.5·layer 3 − direction of 3"
    ]  # fmt: skip


def test_negative_images_silence() -> None:
    found = synthesise(small(), "3", [0, 1], natural=NATURAL, negative=True, steps=60)
    assert found.natural_values is not None and (found.values < found.natural_values).all()
    assert found.beats_natural is not None and found.beats_natural.all()
    with torch.no_grad():
        lowest = small()[:4](NATURAL)[:, :2].amin((0, 2, 3))
    assert found.natural_values == pytest.approx(lowest.numpy(), rel=1e-5)


def test_diverse_images_differ_more() -> None:
    def likeness(diversity: float) -> float:
        found = synthesise(small(), "3", 1, kind="unit", size=SIZE, versions=3, diversity=diversity, steps=30)
        assert found.versions.tolist() == [0, 1, 2] and found.inputs is not None
        with torch.no_grad():
            features = small()[:4](found.inputs).flatten(2)
        grams = F.normalize((features @ features.transpose(1, 2)).flatten(1), dim=1)
        return float((grams @ grams.T)[~torch.eye(3, dtype=torch.bool)].mean())

    assert 1 - likeness(2.0) > 3 * (1 - likeness(0.0))


# ---- parametrisations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("name", ["fourier", "pixels", "maco"])
def test_an_image_that_starts_a_parametrisation_comes_back(name: str, channels: int) -> None:
    start = torch.rand(2, channels, 9, 12, generator=torch.Generator().manual_seed(0)).clamp(0.0, 1.0)
    colours, _ = colours_of("imagenet", channels, PixelScale(channels="RGB"), None)
    images = parametrise(name, colours, first_noise([0, 1], (channels, 9, 12)), start)
    assert torch.allclose(images.images(), start, atol=1e-4)


def test_maco_keeps_the_magnitudes() -> None:
    pale = 0.3 + 0.4 * NATURAL
    found = synthesise(small(), "3", 0, kind="unit", natural=pale, parametrisation="maco", colours=None, steps=25,
                       robustness=None)  # fmt: skip
    assert found.inputs is not None
    own = torch.fft.rfft2(unstretched(found.inputs[0]), norm="ortho").abs()
    natural = torch.fft.rfft2(unstretched(pale), norm="ortho").abs().mean(0)
    inside = (slice(None), slice(1, 9), slice(1, 9))  # real coefficients have no phase of their own
    assert torch.allclose(own[inside], natural[inside], rtol=1e-2)
    assert found.curves[0, -1] > found.curves[0, 0] and found.settings["magnitudes"] == "natural"


def blobs(count: int, side: int = 16) -> Tensor:
    """Images of three shapes of random strength in the middle, on black; the border never changes."""
    y, x = grid(side)
    inside = ((x.abs() < 0.7) & (y.abs() < 0.7)).float()
    shapes = torch.stack([torch.exp(-3 * (x**2 + y**2)), torch.cos(3 * x), torch.sin(3 * y)]) * inside
    strengths = torch.randn(count, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.5, 1.0, 0.5])
    return (torch.einsum("nk,kyx->nyx", strengths, shapes) - 4 * (1 - inside))[:, None].sigmoid()


def test_components_are_those_of_the_covariance() -> None:
    pixels = torch.rand(300, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    found = components_of(pixels)
    assert found is not None
    share = (pixels.double().numpy().reshape(300, -1) - 0.5) / 1.02 + 0.5
    logits = np.log(share / (1 - share))
    values, vectors = np.linalg.eigh(np.cov(logits, rowvar=False, bias=True))
    count = len(found.variances)
    assert np.cumsum(values[::-1])[count - 1] >= 0.98 * values.sum() > np.cumsum(values[::-1])[count - 2]
    assert found.variances.numpy() == pytest.approx(values[::-1][:count], rel=1e-5)
    assert found.mean.flatten().numpy() == pytest.approx(logits.mean(0), abs=1e-5)
    same = np.abs((found.directions.flatten(1).double().numpy() * vectors.T[::-1][:count]).sum(1))
    assert same == pytest.approx(np.ones(count), abs=1e-4)
    assert components_of(torch.full((300, 1, 3, 3), 0.5)) is None


def test_components_show_the_pattern_that_a_linear_unit_detects() -> None:
    """Its weights times the covariance, whereas waves show the weights (Haufe et al. 2014)."""
    natural, side = blobs(400), 16
    weights = torch.randn(1, side * side, generator=torch.Generator().manual_seed(3))
    network = nn.Sequential(nn.Flatten(), nn.Linear(side * side, 1, bias=False))
    network[1].weight.data = weights
    logits = unstretched(natural.double()).flatten(1).numpy()
    pattern = np.cov(logits, rowvar=False) @ weights[0].double().numpy()

    def likeness(name: Any) -> float:
        found = synthesise(network, units=0, kind="class", natural=natural, parametrisation=name, robustness=None)
        assert found.inputs is not None and found.settings["parametrisation"] == name.replace("auto", "components")
        away = unstretched(found.inputs.double()).flatten().numpy() - logits.mean(0)
        if name == "auto":  # nothing where nothing varies
            border = natural.std(0).flatten().numpy() < 1e-6
            assert border.sum() > 50 and np.abs(away[border]).max() < 0.01
        return float(np.corrcoef(away, pattern)[0, 1])

    # not 1, as the steps of Adam are equally long and pixels are bounded
    assert likeness("auto") > 0.8 and likeness("fourier") < 0.7


def test_components_are_taken_of_small_whole_inputs_alone() -> None:
    network, natural = small(), torch.rand(256, *SIZE, generator=torch.Generator().manual_seed(0))

    def chosen(images: Tensor, layer: str | None = None, units: int = 0, **settings: Any) -> Any:
        kind = "class" if layer is None else "neuron"
        return synthesise(network, layer, units, kind, natural=images, steps=1, **settings).settings

    made = chosen(natural)
    assert (made["parametrisation"], made["decay"], made["colours"]) == ("components", None, "data")
    assert made["robustness"] == Robustness.for_components(18).settings
    for settings in ({"start": natural[0]}, {"decay": 2}, {"colours": None}, {"layer": "3"}):
        assert chosen(natural, **settings)["parametrisation"] == "fourier"
        with pytest.raises(InterpretError, match="'components' needs natural= with 256 images of at most 4,096 pixels"):
            chosen(natural, parametrisation="components", **settings)
    assert chosen(natural[:255])["parametrisation"] == "fourier"
    alike = chosen(natural[:1].expand(256, -1, -1, -1))
    assert alike["parametrisation"] == "fourier"


@pytest.mark.parametrize(("name", "beaten"), [("lenet", 10), ("lenet5", 4)])
def test_digits_are_drawn_and_recognised(name: str, beaten: int) -> None:
    model = interpret.load(name)
    found = synthesise(model, kind="class", natural="digits")
    assert found.inputs is not None and found.distances is not None and found.beats_natural is not None
    assert model.module(found.inputs).argmax(1).tolist() == list(range(10))
    assert found.beats_natural.sum() >= beaten and np.median(found.distances) < 2


def test_a_larger_decay_holds_fine_detail_back() -> None:
    def roughness(decay: float) -> float:
        found = synthesise(small(), "3", 1, kind="unit", size=SIZE, steps=12, decay=decay, robustness=None)
        assert found.inputs is not None and found.settings["decay"] == decay
        return float(found.inputs.diff(dim=-1).square().mean() / found.inputs.var())

    assert roughness(2.0) < 0.7 * roughness(1.0)
    with pytest.raises(InterpretError, match="decay must be a power from 0 to 4, not -1"):
        roughness(-1)


@pytest.mark.parametrize("parametrisation", ["fourier", "pixels"])
def test_the_contrast_has_a_limit(parametrisation: Any) -> None:
    def contrast(limit: float | None, **settings: Any) -> float:
        found = synthesise(small(), "3", 1, kind="unit", size=SIZE, steps=80, robustness=None, contrast=limit,
                           parametrisation=parametrisation, **settings)  # fmt: skip
        assert found.inputs is not None
        return float(unstretched(found.inputs.double()).clamp(-6, 6).square().mean().sqrt())

    assert contrast(0.5) == pytest.approx(0.5, abs=1e-3) and contrast(None) > 1
    # an image to start from has the contrast that it has
    start = NATURAL[0]
    assert contrast(0.1, start=start, rate=1e-6) == pytest.approx(
        float(unstretched(start).square().mean().sqrt()), rel=1e-2
    )
    with pytest.raises(InterpretError, match="contrast must be above 0, 'auto', or None for no limit, not 0"):
        contrast(0)


def test_colours_have_the_correlation_of_the_data() -> None:
    mixed = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)).double()
    mixed = torch.tensor([[1.0, 0.2, 0], [0.8, 0.5, 0], [0.1, 0.3, 0.4]]).double() @ mixed
    covariance = torch.cov(mixed)
    matrix = decorrelating(covariance).double()
    made = matrix @ matrix.T
    assert torch.allclose(made / made[0, 0], covariance / covariance[0, 0], atol=1e-3)
    bgr, _ = colours_of("imagenet", 3, PixelScale(channels="BGR"), None)
    rgb, _ = colours_of("imagenet", 3, PixelScale(channels="RGB"), None)
    point = torch.randn(1, 3, 2, 2)
    assert torch.equal(bgr.pixels(point), rgb.pixels(point).flip(1))
    assert Colours().pixels(torch.zeros(1, 1, 1, 1)).item() == 0.5


def test_an_image_is_drawn_on_what_the_network_takes_for_nothing() -> None:
    colours, _ = colours_of("imagenet", 3, PixelScale((12.75, 102, 204), (1,), 255, "BGR"), None)
    assert colours.pixels(torch.zeros(1, 3, 1, 1)).flatten().tolist() == pytest.approx([0.05, 0.4, 0.8], abs=1e-5)
    image = torch.rand(1, 3, 4, 4) * 0.9 + 0.05
    assert torch.allclose(colours.pixels(colours.coordinates(image)), image, atol=1e-4)
    # black paper behind the digits
    model = interpret.load("lenet")
    found = synthesise(model, units=[0, 1], kind="class", steps=60)
    assert found.inputs is not None and model.module(found.inputs).argmax(1).tolist() == [0, 1]
    assert np.median(found.pictures) < 0.2 * 255 and found.pictures.max() > 0.9 * 255
    # a grey image is another: from there, black has to be drawn
    grey = synthesise(model.module, units=[0], kind="class", size=(1, 28, 28), steps=60)
    assert np.median(grey.pictures) > 0.3 * 255


def test_tiny_images_are_as_strong_as_black_and_white_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    natural = (torch.rand(64, 1, 9, 9, generator=generator) > 0.5).float()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 5, bias=False))
    found, limited = (synthesise(network, "0", natural=natural, contrast=one) for one in ("auto", 1.4))
    # the largest value of a linear filter: white where its weight is positive
    best = network[0].weight.detach().clamp(min=0).sum((1, 2, 3)).numpy()
    assert found.beats_natural is not None and found.beats_natural.all()
    assert (found.values > 0.9 * best).all() and (limited.values < found.values).all()
    assert float(np.median(limited.values / best)) < 0.9


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels(channels: int) -> None:
    network = nn.Sequential(nn.Conv2d(channels, 3, 5), nn.ReLU(), nn.Conv2d(3, 2, 5))
    natural = torch.rand(6, channels, 28, 28)
    for colours in ("imagenet", "data"):
        found = synthesise(network, "2", [0, 1], natural=natural, colours=colours, steps=5)
        assert found.inputs is not None and found.inputs.shape == (2, channels, 9, 9)


# ---- how it runs -----------------------------------------------------------------------------------------------------


def test_it_is_the_same_again_and_beside_others() -> None:
    network = small()
    alone = synthesise(network, "3", 2, size=SIZE, steps=12, robustness=Robustness(2, 0.1, 5, 3))
    again = synthesise(network, "3", 2, size=SIZE, steps=12, robustness=Robustness(2, 0.1, 5, 3))
    beside = synthesise(network, "3", [0, 2, 3], size=SIZE, steps=12, robustness=Robustness(2, 0.1, 5, 3))
    other = synthesise(network, "3", 2, size=SIZE, steps=12, robustness=Robustness(2, 0.1, 5, 3), seed=1)
    assert alone.inputs is not None and again.inputs is not None and beside.inputs is not None
    assert torch.equal(alone.inputs, again.inputs)
    assert torch.allclose(alone.inputs[0], beside.inputs[1], atol=1e-3)
    assert not torch.equal(alone.inputs, other.inputs)


def test_no_more_images_than_a_batch_are_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, sizes = nn.Sequential(nn.Conv2d(3, 12, 5), nn.ReLU(), nn.Conv2d(12, 12, 3)), list[int]()
    torch.manual_seed(0)
    images = torch.rand(10, 3, 20, 20)
    plain = nn.functional.conv2d

    def watched(x: Tensor, *args: Any, **options: Any) -> Tensor:
        sizes.append(len(x))
        return plain(x, *args, **options)

    network[0].forward = lambda x: watched(x, network[0].weight, network[0].bias)  # type: ignore[method-assign]
    for kind in ("neuron", "unit"):
        sizes.clear()
        made = synthesise(network, "2", range(12), kind, natural=images, size=(3, 20, 20), steps=3, batch_size=4)
        assert len(made.values) == 12 and max(sizes) == 4


def test_the_network_and_the_random_state_are_as_before() -> None:
    network = small().train()
    before, state = {key: one.clone() for key, one in network.state_dict().items()}, torch.get_rng_state()
    with torch.inference_mode():
        synthesise(network, "3", 0, size=SIZE, steps=3)
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[key], one) for key, one in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


RECTIFIERS: dict[str, Any] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU6": nn.ReLU6(inplace=True),
    "F.relu_": F.relu_,
    "F.relu6": F.relu6,
    "clamp": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clamp_(0, 6),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "clip": lambda x: x.clip(0),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "max": lambda x: torch.max(x, torch.zeros(())),
    "hardtanh": lambda x: F.hardtanh(x, 0.5, 6),  # flat at positive values, too
    "nn.Hardtanh": nn.Hardtanh(-1, 6),
    "nn.Hardswish": nn.Hardswish(),
    "nn.Threshold": nn.Threshold(0, 0),
    "product": lambda x: x * (x > 0),
    "choice": lambda x: torch.where(x > 0, x, 0.0),
}


class Silent(nn.Module):
    """It is silent below a mean of 0.6, or of 0.75."""

    def __init__(self, rectifier: Any) -> None:
        super().__init__()
        self.conv, self.rectifier, self.last = nn.Conv2d(1, 1, 5), rectifier, nn.Conv2d(1, 1, 1)
        with torch.no_grad():
            self.conv.weight.fill_(1.0)
            self.conv.bias.fill_(-17.0 if isinstance(rectifier, nn.Hardswish) else -15.0)
            self.last.weight.fill_(1.0)
            self.last.bias.fill_(0.0)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.rectifier(self.conv(x)))
        return found


@pytest.mark.parametrize("spelling", RECTIFIERS)
def test_flat_rectifiers_pass_a_gradient_however_they_are_spelt(spelling: str) -> None:
    network, x = Silent(RECTIFIERS[spelling]), torch.full((2, 1, 5, 5), 0.5)
    x[1] = 0.7 if network.conv.bias > -16 else 0.9
    x.requires_grad_()
    with redirecting(network):
        output = network(x)
    (found,) = torch.autograd.grad(output.sum(), x)
    (plain,) = torch.autograd.grad(network(x).sum(), x)
    assert not plain[0].any() and (found[0] == 1).all()
    assert plain[1].any() and torch.equal(found[1], plain[1])  # not silent
    # nothing below makes it smaller
    with redirecting(network):
        output = network(x)
    assert not torch.autograd.grad(-output[0].sum(), x)[0].any()


@pytest.mark.parametrize("spelling", ["nn.ReLU", "clamp_min"])
def test_a_unit_that_is_silent_at_the_start_is_reached(spelling: str) -> None:
    found = synthesise(Silent(RECTIFIERS[spelling]), "last", 0, size=(1, 12, 12), steps=20)
    assert 0 < found.redirected[0] < 8 and found.values[0] > 2
    assert "1 image began where the gradient is zero" in found.reading


def test_only_redirected_rectifiers_that_help_are_counted() -> None:
    assert synthesise(small(), "3", 0, size=SIZE, steps=5).redirected[0] == 0
    # at the upper end, nothing makes it larger
    assert synthesise(Silent(nn.Hardtanh()), "last", 0, size=(1, 12, 12), steps=20).redirected[0] < 8


class Fragile(nn.Module):
    """It is NaN once its input is bright."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.weight, self.limit = nn.Parameter(torch.ones(1, 1, 3, 3)), limit

    def forward(self, x: Tensor) -> Tensor:
        total = F.conv2d(x, self.weight)
        return torch.where(total > self.limit, torch.full_like(total, float("nan")), total)


def test_an_activation_that_becomes_nan_stops() -> None:
    network = nn.Sequential(Fragile(7.0))
    with pytest.warns(UserWarning, match=r"neuron 0 of 0 became NaN or infinite at step \d+"):
        found = synthesise(network, "0", 0, size=(1, 9, 9), steps=100, decay=1, contrast=1.4)
    assert 1 <= found.stopped[0] < 100 and 5 < found.values[0] <= 7.0
    with pytest.raises(InterpretError, match="is NaN or infinite at the first step"):
        synthesise(nn.Sequential(Fragile(0.0)), "0", 0, size=(1, 9, 9))


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x).detach())
        return result


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layer": "3", "units": 4}, "unit 4 is not in layer '3', whose units are 0 to 3"),
        ({"kind": "class", "units": 5}, "class 5 is not in the network, whose classes are 0 to 4"),
        ({"layer": "conv9", "units": 0}, "unknown layer 'conv9'"),
        ({"layer": "3", "units": 0, "steps": 0}, "steps must be at least 1, not 0"),
        ({"layer": "3", "units": []}, "units is empty"),
        ({"layer": "3", "directions": [1.0, 2.0]}, "the direction has 2 numbers, and layer '3' has 4 channels"),
        ({"layer": "3", "directions": [1.0, float("nan"), 0, 0]}, "numbers that are NaN or infinite"),
        ({"layer": "3", "units": 0, "kind": "neurone"}, "unknown kind of objective 'neurone'"),
        ({"layer": "3", "units": 0, "size": (7, 12)}, "smaller than the receptive field of '3', 8 × 8"),
        ({"layer": "3", "units": 0, "parametrisation": "furier"}, "unknown parametrisation 'furier': did you mean"),
        ({"layer": "3", "units": 0, "colours": "data"}, "colours='data' needs natural="),
        ({"layer": "3", "units": 0, "start": torch.zeros(3, 5, 5)}, "start must be inputs"),
        ({"layer": "3", "units": 0, "robustness": "much"}, "robustness must be 'auto', None or a Robustness"),
        ({"units": 0}, "kind='neuron' needs a layer"),
        ({"layer": "3", "kind": "class"}, "leave layer out"),
        ({"layer": "3", "units": 0, "rate": 0}, "rate must be above 0"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(arguments: dict[str, Any], said: str) -> None:
    model = interpret.load(small(), preprocess=interpret.Preprocess((18, 18)))
    with pytest.raises(InterpretError, match=said):
        synthesise(model, **arguments)


def test_more_bad_input_is_refused() -> None:
    with pytest.raises(InterpretError, match="cannot be differentiated"):
        synthesise(Detached(), "second", 0, size=SIZE)
    with pytest.raises(InterpretError, match=r"does not say what its input looks like: give size=\(C, H, W\)"):
        synthesise(small(), "3", 0)
    with pytest.raises(InterpretError, match="padding must be at least jitter"):
        Robustness(jitter=4)
    with pytest.raises(InterpretError, match="robustness scale must be at least 0"):
        Robustness(scale=-1)


# ---- results ---------------------------------------------------------------------------------------------------------


def test_results_are_cut_and_joined() -> None:
    network = small()
    found = synthesise(network, "3", [0, 1, 2], natural=NATURAL, steps=3)
    first, rest = found.only([0]), found.only([1, 2])
    joined = first.with_others(rest)
    assert joined.names == found.names and np.array_equal(joined.pictures, found.pictures)
    assert all(np.array_equal(joined.columns()[name], column) for name, column in found.columns().items())
    other = synthesise(network, "3", 3, natural=NATURAL, steps=4)
    mixed = found.with_others(other)
    assert [mixed.settings_of(row)["steps"] for row in range(4)] == [3, 3, 3, 4] and "steps" not in mixed.settings
    assert mixed.steps.tolist() == [0, 1, 2, 3] and np.isnan(mixed.curves[:3, 3]).all()
    assert np.array_equal(mixed.curves[3], other.curves[0]) and mixed.only([3]).settings == other.settings
    with pytest.raises(InterpretError, match="whose layer differ"):
        found.with_others(synthesise(network, "0", 3, natural=NATURAL, steps=3))


def test_a_result_comes_back_from_its_file(tmp_path: Any) -> None:
    found = synthesise(small(), "3", [0, 1], natural=NATURAL, steps=3)
    found.save(tmp_path / "it.safetensors")
    read = Synthesised.load(tmp_path / "it.safetensors")
    assert read.inputs is None and read.settings == found.settings
    assert np.array_equal(read.pictures, found.pictures) and np.array_equal(read.values, found.values)


# ---- inversion -------------------------------------------------------------------------------------------------------


def test_a_layer_that_keeps_everything_gives_the_image_back() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))
    y, x = grid(16)
    image = torch.stack([0.5 + 0.3 * torch.sin(3 * x), 0.5 + 0.3 * y, 0.5 + 0.3 * x * y])[None]
    found = interpret.invert(network, image, ["0", "4"], variation=0, steps=300)
    first, last = np.abs(found.pictures / 255 - found.originals / 255).mean((1, 2, 3, 4))
    assert first < 0.03 < last  # a mean over the image says not where anything is
    with torch.no_grad():
        inverted = torch.from_numpy(found.pictures[0, 0] / 255).float().permute(2, 0, 1)[None]
        wanted, own = network[0](image), network[0](inverted)
    literal = float((own - wanted).square().sum() / wanted.square().sum())
    assert found.errors[0, 0] == pytest.approx(literal, abs=2e-4) and (found.errors < 0.1 * found.noise_errors).all()


def test_bad_inversions_are_refused() -> None:
    with pytest.raises(InterpretError, match="steps must be at least 1"):
        interpret.invert(small(), NATURAL, "3", steps=0)
    with pytest.raises(InterpretError, match="unknown layer"):
        interpret.invert(small(), NATURAL, "conv7")
    with pytest.raises(InterpretError, match="cannot be differentiated"):
        interpret.invert(Detached(), NATURAL, "second", steps=2)
    dead = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    with torch.no_grad():
        dead[0].bias.fill_(-100.0)
    with pytest.raises(InterpretError, match="features of image 0 in layer '1' are all zero"):
        interpret.invert(dead, NATURAL, "1", steps=2)


class _Counted(DerivedImages):
    """Counts how often an image is read."""

    reads = 0

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        self.reads += 1
        return self.data[item]


def test_natural_images_are_read_once_where_they_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    images = _Counted(open_images(NATURAL, small()))
    sizes = [(5, 5), (9, 7), (5, 5)]
    read_again = [natural.natural_windows(images, size) for size in sizes]
    assert images.reads == 3 * len(NATURAL)
    for most, reads in ((natural.MOST_HELD, len(NATURAL)), (NATURAL.numel() - 1, 3 * len(NATURAL))):
        monkeypatch.setattr(natural, "MOST_HELD", most)
        images.reads = 0
        with natural.natural_images_held():
            found = [natural.natural_windows(images, size) for size in sizes]
        assert images.reads == reads
        for one, other in zip(found, read_again, strict=True):
            assert one is not None and other is not None and torch.equal(one, other)
    natural.natural_windows(images, (5, 5))
    assert images.reads == 4 * len(NATURAL)  # held no longer
