"""Occlusion against running every occluded image, and against captum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import Tensor, nn
from typer.testing import CliRunner

import interpret
from helpers.figure_checks import faults
from helpers.heads import HEADS, Headed, pictures
from helpers.scripts import run_script
from interpret import InterpretError, Study, occlude, plot_occlusion
from interpret.cli.app import app
from interpret.results import Result


def network(channels: int = 3, classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, stride=2),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, classes),
    ).double()  # fmt: skip


@torch.no_grad()
def literally(module: nn.Module, image: Tensor, label: int, size: int, stride: int, fill: float) -> dict[str, Any]:
    """Occlude one image place by place, each with a forward pass of its own."""
    height, width = image.shape[1:]
    # until the occluder reaches the far border
    tops = [top for top in range(0, height, stride) if top == 0 or top - stride + size < height]
    lefts = [left for left in range(0, width, stride) if left == 0 or left - stride + size < width]
    maps = module[:4](image[None]).clamp(min=0)[0]
    channel = int(maps.sum((1, 2)).argmax())
    found: dict[str, Any] = {"probabilities": [], "predictions": [], "activations": [], "channel": channel}
    for top in tops:
        for left in lefts:
            occluded = image.clone()
            occluded[:, top : min(top + size, height), left : min(left + size, width)] = fill
            output = module(occluded[None])[0]
            found["probabilities"].append(float(output.exp()[label] / output.exp().sum()))
            found["predictions"].append(int(output.argmax()))
            found["activations"].append(float(module[:4](occluded[None])[0, channel].clamp(min=0).sum()))
    return found | {"shape": (len(tops), len(lefts))}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 20), stride=st.integers(1, 9), batch_size=st.integers(1, 20))
def test_every_place_is_as_if_the_occluded_image_had_run(size: int, stride: int, batch_size: int) -> None:
    module, images = network(), pictures()
    found = occlude(module, images, [1, 3], size, stride, layer="3", fill=0.25, batch_size=batch_size)
    for row, label in enumerate((1, 3)):
        expected = literally(module, images[row], label, size, stride, 0.25)
        assert found.probabilities[row].shape == expected["shape"]
        assert int(found.channels[row]) == expected["channel"]
        np.testing.assert_allclose(found.probabilities[row].ravel(), expected["probabilities"], rtol=1e-12)
        np.testing.assert_allclose(found.activations[row].ravel(), expected["activations"], rtol=1e-11, atol=1e-12)
        assert found.predictions[row].ravel().tolist() == expected["predictions"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "mobilenet_v2"])
def test_it_equals_captum(name: str) -> None:
    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(weights=None).double().eval()
    image = pictures(1, 64, 64)
    found = occlude(module, image, [7], 16, 8)
    expected = captum.attr.Occlusion(lambda x: module(x).softmax(1)).attribute(
        image, (3, 16, 16), strides=(3, 8, 8), target=7, baselines=0.0, perturbations_per_eval=8
    )
    np.testing.assert_allclose(found.attributions(), expected[:, 0].numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", HEADS)
def test_every_shape_of_head_answers_as_on_whole_images(name: str) -> None:
    head, features = HEADS[name]
    module = Headed(head, features).double().eval()
    images = pictures(2, 19, 23)
    found = occlude(module, images, [1, 3], 6, 5, layer="body.2", fill=0.25, batch_size=7)
    for row, label in enumerate((1, 3)):
        places = [(top, left) for top in found.tops.tolist() for left in found.lefts.tolist()]
        for (top, left), probability in zip(places, found.probabilities[row].ravel(), strict=True):
            occluded = images[row].clone()
            occluded[:, top : top + 6, left : left + 6] = 0.25
            # one image alone loses its first dimension to a `squeeze`
            output = module(torch.stack([occluded, occluded]))[0]
            torch.testing.assert_close(output.softmax(0)[label].item(), float(probability), rtol=1e-10, atol=0)


@pytest.mark.slow
def test_the_shipped_command_occludes_a_network_with_linear_layers(tmp_path: Path) -> None:
    out = tmp_path / "occlusion.png"
    run = CliRunner().invoke(app, ["occlude", "lenet", "digits", "--size", "4", "--stride", "2", "--out", str(out)])
    assert run.exit_code == 0, run.output
    assert out.stat().st_size > 10_000


def test_an_occluder_of_the_images_own_values_changes_nothing() -> None:
    images = torch.full((1, 3, 12, 12), 0.5, dtype=torch.float64)
    found = occlude(network(), images, size=4, stride=4, fill=0.5)
    np.testing.assert_allclose(found.probabilities, found.clean_probabilities[0], rtol=1e-12)
    np.testing.assert_allclose(found.activations, found.clean_activations[0], rtol=1e-12)
    assert (found.predictions == found.clean_predictions[0]).all()


def test_the_model_and_the_images_are_left_as_they_were() -> None:
    module, images = network().train(), pictures()
    before, weights = images.clone(), [weight.clone() for weight in module.parameters()]
    occlude(module, images, size=8, stride=4)
    assert torch.equal(images, before)
    assert all(torch.equal(*pair) for pair in zip(weights, module.parameters(), strict=True))
    assert module.training and all(weight.requires_grad for weight in module.parameters())


def test_grey_is_the_middle_of_a_picture_as_the_preprocessing_maps_it() -> None:
    model = interpret.load("lenet")
    image = interpret.open_images("digits", model)[0][0][None]
    grey = float(model.preprocess.encode(np.full((1, 1, 3), 128, np.uint8)).flatten()[0])
    same = [occlude(model, image, size=7, stride=7, fill=fill).probabilities for fill in ("grey", grey)]
    np.testing.assert_array_equal(*same)


def test_projections_of_other_images_are_those_of_the_same_feature_map() -> None:
    module, images = network().float(), pictures(6).float()
    found = occlude(module, images[:2], size=8, stride=8, layer="3", others=images)
    mined = interpret.mine(module, images, "3", k=3)["3"]
    for row, channel in enumerate(found.channels.tolist()):
        filled = int((mined.images[channel] >= 0).sum())
        assert len(found.others[str(row)]) == filled > 0


def test_outputs_that_are_probabilities_stay_what_they_are() -> None:
    module, images = network(), pictures()
    plain, normalised = (
        occlude(one, images, size=8, stride=4, layer="3") for one in (module, nn.Sequential(*module, nn.Softmax(1)))
    )
    np.testing.assert_allclose(normalised.probabilities, plain.probabilities, rtol=1e-12)


def titles(figure: Figure) -> list[str]:
    texts = [text.get_text().replace("\n", " ") for axes in figure.axes for text in axes.texts]
    return [text for text in texts if text.startswith("(")]


def test_without_a_feature_map_the_answers_are_the_same(tmp_path: Path) -> None:
    module, images = network(), pictures()
    followed, bare = (occlude(module, images, size=8, stride=4, feature_map=one) for one in (True, False))
    np.testing.assert_array_equal(bare.probabilities, followed.probabilities)
    assert bare.layer is bare.activations is bare.projections is None
    bare.save(tmp_path / "bare.safetensors")
    again: Any = Result.load(tmp_path / "bare.safetensors")
    assert titles(plot_occlusion(again)) == ["(a) image", "(b) probability of the class", "(c) most probable"]
    assert "feature map" not in again.reading


def test_a_result_is_stored_and_drawn(tmp_path: Path) -> None:
    module, images = network().float(), pictures(3).float()
    found = occlude(module, images, size=8, stride=4, others=images)
    study = Study(tmp_path / "study", module, images)
    study.keep(found, "three images")
    assert study.results == [("occlusion", "three images")]
    again = Study.open(study.path).result("occlusion", "three images")
    np.testing.assert_array_equal(again.probabilities, found.probabilities)
    assert again.reading == found.reading and again.predicted and "most probable without it" in again.reading
    told = occlude(module, images[:1], labels=[1], size=8, stride=4)
    assert not told.predicted and "true class" in told.reading
    assert set(again.others) == set(found.others)
    figure = plot_occlusion(again)
    assert [title[:3] for title in titles(figure)] == ["(a)", "(b)", "(c)", "(d)", "(e)"]  # once, above all images
    assert len(figure.axes) == 3 * 5 and faults(figure) == []
    figure.savefig(tmp_path / "figure.png")
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        study.path / "results" / "occlusion" / "three%20images.safetensors"
    ).read_bytes()
    assert Result.load(tmp_path / "again.safetensors").kind == "occlusion"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 30}, "size 30 × 30 is larger than the images, 20 × 23"),
        ({"size": 0}, "size must be a whole number of pixels of at least 1"),
        ({"size": 3.5}, "size must be a whole number of pixels of at least 1, or two, not 3.5"),
        ({"stride": 0}, "stride must be a whole number of pixels of at least 1"),
        ({"labels": [1, 9]}, "label 9 is no class of the network, whose classes are 0 to 3"),
        ({"labels": [1]}, "labels must be 2 whole numbers"),
        ({"fill": "gray"}, "fill must be 'grey', 'mean' or numbers, not 'gray'"),
        ({"fill": [1.0, 2.0]}, "fill must be one number or 3"),
        ({"layer": "7"}, "layer '7' has no feature maps"),
        ({"layer": "8"}, "unknown layer '8'"),
        ({"channels": [0, 9]}, "channels must be from 0 to 4"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_mistakes_are_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InterpretError, match=message):
        occlude(network(), pictures(), **({"size": 8, "stride": 4} | options))


def test_what_is_no_classifier_is_refused() -> None:
    with pytest.raises(InterpretError, match="must return one score for each class"):
        occlude(network()[:4], pictures(), size=8, stride=4)


@pytest.mark.slow
def test_the_figure_shows_that_hiding_the_digit_costs_the_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The paper's claim: the drop is where the object is, so that the network does see the object."""
    out = tmp_path / "figure7.png"
    told = run_script(
        monkeypatch, capsys, "papers/zeiler_fergus_figure7", "lenet", "digits", "--size", 9, "--stride", 3, "--out", out
    )
    assert told[-1] == f"Open {out}"
    assert out.stat().st_size > 10_000
    model = interpret.load("lenet")
    images = torch.stack([interpret.open_images("digits", model)[item][0] for item in range(0, 200, 20)])
    found = occlude(model, images, size=9, stride=3, fill=0.0)
    ink = found.pictures[..., 0].astype(float)
    cost, hidden = [], []
    for row in range(len(images)):
        for y, top in enumerate(found.tops.tolist()):
            for x, left in enumerate(found.lefts.tolist()):
                hidden.append(ink[row, top : top + 9, left : left + 9].sum() / ink[row].sum())
                cost.append(found.clean_probabilities[row] - found.probabilities[row, y, x])
    order = np.argsort(hidden)
    least, most = np.array(cost)[order[: len(order) // 4]], np.array(cost)[order[-len(order) // 4 :]]
    assert most.mean() > 20 * max(least.mean(), 0) and most.mean() > 0.1


class Impatient(nn.Module):
    """A network that somebody interrupts at one of its forward passes; copies of it count together."""

    runs, stop = 0, -1

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        Impatient.runs += 1
        if Impatient.runs == Impatient.stop:
            raise KeyboardInterrupt
        return self.layers(images)


def test_interrupted_occlusion_goes_on_where_it_was(tmp_path: Path) -> None:
    images = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    network, file = Impatient(), tmp_path / "state.safetensors"
    how: Any = {
        "size": 4,
        "stride": 2,
        "layer": "layers.0",
        "batch_size": 2,
        "resume_from": file,
    }
    whole = interpret.occlude(network, images, **how)
    needed, Impatient.runs = Impatient.runs, 0
    (tmp_path / "state.places.safetensors").unlink()
    Impatient.stop = needed - 6
    with pytest.raises(KeyboardInterrupt):
        interpret.occlude(network, images, **how)
    Impatient.runs, Impatient.stop = 0, -1
    again = interpret.occlude(network, images, **how)
    assert Impatient.runs < needed / 2
    for name in ("probabilities", "predictions", "activations", "clean_activations"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    Impatient.runs = 0
    other = interpret.occlude(network, images, **how | {"fill": "mean"})  # which is other work
    # all but the six passes that check a network's answers, which are remembered
    assert Impatient.runs >= needed - 6 and not np.array_equal(other.probabilities, whole.probabilities)
