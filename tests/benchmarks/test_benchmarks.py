"""The benchmarks measure time, which no test may: here, only that each script still knows what it measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest
import torch

import interpret
from helpers.packages import needs
from helpers.scripts import ROOT

SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_finds_all_it_imports(script: Path) -> None:
    asked = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    assert f"python benchmarks/{script.name}" in asked.stdout


@pytest.mark.slow
def test_without_a_gpu_the_benchmark_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    ended = subprocess.run([sys.executable, ROOT / "benchmarks" / "gpu.py"], capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.count("\n") == 1 and "no CUDA device" in ended.stdout


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_on_a_processor(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("before\n<!-- gpu:begin -->\nold\n<!-- gpu:end -->\nafter\n")
    small = "--images 4 --batch-size 2 --side 32 --neurons 2 --peer-neurons 1 --rounds 1 --networks convnext_tiny"
    subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu.py", "--device", "cpu", *small.split(), "--markdown", document],
        check=True, capture_output=True,
    )  # fmt: skip
    lines = document.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after") and "old" not in lines
    assert lines[2].startswith("Measured on cpu with torch ")
    for dtype in ("float32", "bfloat16"):
        (mined,) = [line for line in lines if line.startswith(f"| convnext_tiny | {dtype} | 2 |")]
        assert all(float(cell.replace(",", "")) >= 0 for cell in mined.split(" | ")[3:7])
    assert sum(line.startswith("| convnext_tiny | `features.") for line in lines) == 2


def test_scaling_extrapolates_what_was_measured() -> None:
    """A tenth of a second an image, 2 s to send or merge a state, 1 s to save it: by hand, for 1 and 4 ranks."""
    scaling = run_path(str(ROOT / "benchmarks" / "scaling.py"))
    costs = scaling["Costs"](
        machine="", network="", units=10, images_per_second=10.0, decoded_per_second=100.0, memory=10**9,
        state=10**6, merge_seconds=1.0, send_bytes_per_second=10**6, save_seconds=1.0,
        list_seconds_per_image=0.001, list_bytes_per_image=100.0,
    )  # fmt: skip
    alone = scaling["extrapolate"](costs, 24_000, 1, costs.images_per_second, costs.send_bytes_per_second)
    # 40 minutes, so 40 saves
    assert alone.compute_seconds == 2400 and alone.list_seconds == 24
    assert alone.merge_seconds == pytest.approx(40)
    assert alone.rank_memory == 10**9 + 2_400_000 and alone.merged_bytes == 0
    together = scaling["extrapolate"](costs, 24_000, 4, costs.images_per_second, costs.send_bytes_per_second)
    # 10 minutes; two steps of a second to send and a second to merge, and the save
    assert together.compute_seconds == 600 and together.list_seconds == 24
    assert together.merge_seconds == pytest.approx(10 * (2 * 2 + 1))
    assert together.rank_memory == 10**9 + 2_400_000 + 10**6
    assert together.merged_bytes == 3 * 10**6
    text = scaling["document"](costs)
    assert "10¹⁰" in text and "1,024" in text and "Assumed" in text and "saturates first" in text


@pytest.mark.slow
def test_scaling_measures_all_its_costs(tmp_path: Path) -> None:
    made = tmp_path / "scaling.md"
    small = "--network squeezenet1_1 --images 8 --files 500".split()
    subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "scaling.py", *small, "--write", made], check=True, capture_output=True
    )
    lines = made.read_text("utf-8").splitlines()
    assert "| network | squeezenet1_1, random weights, 3,944 units of convolutions and linear layers |" in lines
    assert any(line.startswith("| the same, for each image read | 0 bytes") for line in lines)
    assert sum(line.startswith("| 10") for line in lines) == 2 * 12


def test_activations_are_read_before_later_layers_write_over_them() -> None:
    """All ways to optimise are measured by one function on maps as the layer returns them, here −1 before a ReLU."""
    measured = run_path(str(ROOT / "benchmarks" / "synthesis.py"))["objective_of"]
    conv = torch.nn.Conv2d(3, 2, 1)
    torch.nn.init.zeros_(conv.weight)
    torch.nn.init.constant_(conv.bias, -1.0)
    network = torch.nn.Sequential(conv, torch.nn.ReLU(inplace=True))
    model = interpret.load(network, preprocess=interpret.Preprocess((4, 4)))
    with torch.no_grad():
        assert float(measured(model, "0", 1)(torch.rand(1, 3, 4, 4))) == -1.0


@needs("keras")
@pytest.mark.slow
def test_the_table_of_keras_shows_one_layer_that_is_wrong() -> None:
    """In a process of its own, since all of Keras then computes in float64."""
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import keras_applications as table, torch
keras, layers = table.keras, table.keras.layers
image = keras.Input((12, 12, 3))
conv = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
maps = layers.BatchNormalization(name="norm")(conv(image))
twice = layers.Conv2D(4, 1, name="twice")
maps = layers.Dense(4, activation="gelu", name="mixed")(twice(layers.add([twice(maps), maps])))
model = keras.Model(image, layers.Dense(2, name="end")(layers.GlobalAveragePooling2D()(maps)))
table.draw_statistics(model)
graph, images = table.interpret.load(model).module, torch.rand(2, 3, 12, 12, dtype=torch.float64)
with torch.no_grad():
    print(table.of_layers(model, graph, images))
    for name in ("conv", "norm", "twice", "mixed", "end"):
        module = graph.get_submodule(name)
        kept = module.weight
        module.weight = torch.nn.Parameter(kept * (1 + 1e-8))
        print(table.of_layers(model, graph, images))
        module.weight = kept
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    right, *wrong = map(float, ended.stdout.split())
    assert right < 1e-14 and len(wrong) == 5 and all(1e-10 < one < 1e-7 for one in wrong)
