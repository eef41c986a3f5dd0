"""Effective receptive fields against a literal computation, and the shape that the paper proves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import interpret
from interpret import InterpretError, effective_receptive_field
from interpret.analyses.effective_fields.compute import signs_of, smallest
from interpret.study import effective_fields


def network() -> nn.Module:
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 5, 3),
            nn.Tanh(),
            nn.Conv2d(5, 4, 3, dilation=2),
            nn.Flatten(),
            nn.LazyLinear(3),
        )
        .double()
        .eval()
    )


IMAGES = torch.rand(5, 2, 18, 26, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def literal(module: nn.Module, layer: int, signs: Tensor | None) -> NDArray[np.float64]:
    """Each unit's gradient by itself, squared and added; or the gradient of a sum with signs [B, C]."""
    total = np.zeros(IMAGES.shape[2:])
    for row, image in enumerate(IMAGES):
        x = image[None].clone().requires_grad_()
        output = module[: layer + 1](x * 1)  # type: ignore[index]
        middle = output[0, :, output.shape[2] // 2, output.shape[3] // 2]
        aims = list(middle) if signs is None else [(middle * signs[row]).sum()]
        for aim in aims:
            (gradient,) = torch.autograd.grad(aim, x, retain_graph=True)
            total += gradient[0].square().sum(0).numpy()
    return total


@pytest.fixture(scope="module")
def module() -> nn.Module:
    built = network()
    built(IMAGES[:1])
    return built


@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_energies_are_those_of_autograd(module: nn.Module, batch_size: int | None) -> None:
    found = effective_receptive_field(module, IMAGES, batch_size=batch_size, seed=3)
    assert found.layers == ["0", "3", "5"]  # the linear layer has no positions
    traced = interpret.trace(module, (2, 18, 26))
    for name in found.layers:
        layer = traced[name]
        assert layer.receptive_field is not None and layer.grid is not None
        top, left, bottom, right = layer.receptive_field.window((layer.grid[0] // 2, layer.grid[1] // 2))
        signs = torch.stack([signs_of(item, layer.output_shape[0], 3) for item in range(5)])
        whole = literal(module, int(name), signs)
        inside = whole[max(0, top) : bottom, max(0, left) : right]
        assert np.isclose(inside.sum(), whole.sum(), rtol=1e-12)
        assert found.energy[name].dtype == np.float32
        np.testing.assert_allclose(found.energy[name], inside / inside.sum(), rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_random_signs_give_the_energy_of_all_units_on_average(module: nn.Module) -> None:
    exact = literal(module, 5, None)
    draws = 300
    mean = sum(literal(module, 5, torch.stack([signs_of(item, 4, seed) for item in range(5)])) for seed in range(draws))
    assert np.corrcoef(exact.ravel(), (mean / draws).ravel())[0, 1] > 0.998  # type: ignore[union-attr]
    assert float((mean / draws).sum()) == pytest.approx(exact.sum(), rel=0.05)  # type: ignore[union-attr]


def test_windows_are_the_smallest_around_the_neuron_that_hold_the_share() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        energy = random.random((int(random.integers(1, 12)), int(random.integers(1, 12)))) ** 4
        centre = tuple(random.integers(0, 2 * side + 1) / 2 for side in energy.shape)
        share = float(random.uniform(0.05, 1))
        top, left, bottom, right = smallest(energy, centre, share)  # type: ignore[arg-type]
        reaches = np.arange(0, 24) / 2
        for reach in reaches:  # literally: every window of those that grow around the centre
            y, x = (np.clip([np.floor(c - reach), np.ceil(c + reach)], 0, n).astype(int)
                    for c, n in zip(centre, energy.shape, strict=True))  # fmt: skip
            held = energy[y[0] : y[1], x[0] : x[1]].sum() / energy.sum()
            if held >= share and (y[1] - y[0]) * (x[1] - x[0]) < (bottom - top) * (right - left):
                # windows of another parity of both sides are no alternatives
                assert (y[1] - y[0], x[1] - x[0]) != (bottom - top, right - left)
                assert float(reach).is_integer() != all(float(c).is_integer() for c in centre) or reach == 0
        assert energy[top:bottom, left:right].sum() >= share * energy.sum() * (1 - 1e-9)


def test_random_weights_give_a_gaussian_that_grows_as_the_root_of_the_depth() -> None:
    """Luo et al. 2016, section 2.2: a chain of linear convolutions with random weights.

    The energy of n layers of 3×3 is the box of 3×3 convolved n times with itself: a Gaussian of the variance 2n/3.
    """
    depth, width, draws = 12, 16, 8
    images = torch.zeros(8, 3, 25, 25, dtype=torch.float64)
    found = []
    for seed in range(draws):
        torch.manual_seed(seed)
        chain = nn.Sequential(*(nn.Conv2d(width if n else 3, width, 3, bias=False) for n in range(depth))).double()
        for weight in chain.parameters():
            nn.init.normal_(weight, std=(1 / (9 * width)) ** 0.5)
        found.append(effective_receptive_field(chain, images))
    for place in (3, 7, 11):
        n = place + 1
        line = np.array([1.0])
        for _ in range(n):
            line = np.convolve(line, np.ones(3) / 3)
        energy = np.mean([one.energy[str(place)] for one in found], 0)
        assert energy.shape == (2 * n + 1, 2 * n + 1)
        assert np.corrcoef(energy.ravel(), np.outer(line, line).ravel())[0, 1] > 0.98
        spread = np.mean([one.columns()["deviation_y"][place] for one in found])
        assert spread == pytest.approx((2 * n / 3) ** 0.5, rel=0.05)
        # of a Gaussian, a square of ±2.24 deviations holds 95 %
        assert np.mean([one.sizes[place, 0] for one in found]) == pytest.approx(2 * 2.24 * (2 * n / 3) ** 0.5, abs=1)
    assert all(one.sizes[11, 0] < 0.6 * one.theoretical[11, 0] for one in found)


@pytest.mark.slow
def test_it_is_kept_in_a_study_and_shown_on_the_pages_of_layers(module: nn.Module, tmp_path: Path) -> None:
    study = interpret.Study(tmp_path / "one.study", interpret.load(module), IMAGES.clone())
    study.mine("0,3", k=1)
    found = effective_receptive_field(module, IMAGES, share=0.5)
    study.keep(found)
    page = (interpret.write_gallery(study, tmp_path / "gallery").parent / "layers/3/index.html").read_text("utf-8")
    height, width = found.size_of("3") or (0, 0)
    size = str(height) if height == width else f"{height} × {width}"
    assert f"<dt>Effective field</dt><dd>{size}&#8239;px" in page and "50\u202f% of the gradient" in page
    loaded = interpret.Study.open(study.path).result("effective-fields")
    assert loaded.sizes.tolist() == found.sizes.tolist() and loaded.layers == found.layers


def test_mistakes_are_refused(module: nn.Module) -> None:
    for wrong, options in [
        ("share must be above 0 and at most 1, not 1.5", {"share": 1.5}),
        ("count must be at least 1, not 0", {"count": 0}),
        ("layer '7' has no positions", {"layers": "7"}),
        ("unknown layer 'conv'", {"layers": "conv"}),
    ]:
        with pytest.raises(InterpretError, match=wrong):
            effective_receptive_field(module, IMAGES, **options)  # type: ignore[arg-type]
    with pytest.raises(InterpretError, match="are those of images"):
        effective_receptive_field(nn.Sequential(nn.Conv1d(1, 2, 3)), torch.rand(2, 1, 9))


def test_a_study_measures_the_fields_of_its_mined_layers(module: nn.Module, tmp_path: Path) -> None:
    study = interpret.Study(tmp_path / "study", interpret.load(module), IMAGES.clone())
    study.mine("0,7", k=1)
    study.measure_effective_fields()
    found = study.result("effective-fields")
    same = effective_receptive_field(module, IMAGES, ["0"], count=5)
    assert found.layers == ["0"] and found.images == 5  # layer 7 has no positions
    assert found.sizes.tolist() == same.sizes.tolist() and (found.energy["0"] == same.energy["0"]).all()
    study.mine("0,3", k=1)
    study.measure_effective_fields()
    study.measure_effective_fields()
    kept = study.readable_results("effective-fields")
    assert {name: one.layers for name, one in kept.items()} == {"": ["0"], "3": ["3"]}


def test_a_study_measures_in_batches_of_its_size(
    monkeypatch: pytest.MonkeyPatch, module: nn.Module, tmp_path: Path
) -> None:
    study = interpret.Study(tmp_path / "study", interpret.load(module), IMAGES.clone(), batch_size=2)
    study.mine("0", k=1)
    measure, sizes = effective_fields.effective_receptive_field, list[int]()

    def watched(*args: Any, batch_size: int, **options: Any) -> Any:
        sizes.append(batch_size)
        return measure(*args, batch_size=batch_size, **options)

    monkeypatch.setattr(effective_fields, "effective_receptive_field", watched)
    study.measure_effective_fields()
    assert sizes == [2]


def test_a_study_leaves_out_what_has_no_fields(tmp_path: Path) -> None:
    class Stops(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    stops = interpret.Study(tmp_path / "stops", Stops(nn.Conv2d(1, 2, 3)), torch.rand(3, 1, 6, 6))
    stops.mine()
    with pytest.warns(
        UserWarning, match="effective receptive fields were not measured: no signal leads from layer '0'"
    ):
        stops.measure_effective_fields()
    for place, (net, inputs) in enumerate(
        [
            (nn.Conv1d(1, 2, 3), torch.rand(3, 1, 9)),
            (nn.Conv3d(1, 2, 3), torch.rand(3, 1, 4, 5, 6)),
            (nn.ConvTranspose2d(4, 2, 3), torch.rand(3, 4, 1, 1)),
        ]
    ):
        study = interpret.Study(tmp_path / str(place), nn.Sequential(net), inputs)
        study.mine()
        study.measure_effective_fields()
        assert study.results == []


@pytest.mark.parametrize(
    ("pixels", "images"),
    [(2**6, 16), (2**9, 5), (2**12, 1), (2**13, 0)],
)
def test_fewer_images_are_used_of_large_networks_by_their_operations(
    pixels: int, images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once forwards and once back: 2 × 9 products and 2 × 16 for what is written, for each of the pixels."""
    monkeypatch.setattr(effective_fields, "BUDGET", 5 * 2 * (9 + 16) * 2**9)
    monkeypatch.setattr(effective_fields, "MOST", 2 * (9 + 16) * 2**12)
    study = interpret.Study(
        tmp_path / "study", nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)), torch.rand(2, 1, 2, pixels // 2)
    )
    assert effective_fields.images_within(study, ["0"]) == images
