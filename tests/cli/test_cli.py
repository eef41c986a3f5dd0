"""The command: what it makes, and how it refuses a user's mistakes."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from errno import EACCES, ENOSPC, EROFS
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import interpret
from helpers.commands import command, refused, run_apart
from helpers.files import contents
from interpret.cli import main
from interpret.cli.answers import in_one_sentence
from interpret.cli.subjects import absolute_spec
from interpret.images.picture_images import FileImages
from interpret.loading.folders import shipped_models
from interpret.study.study import Study
from interpret.support.errors import warn


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(generator.integers(0, 256, (40, 36, 3), np.uint8)).save(folder / f"{number:02d}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    return folder


def test_help_imports_neither_torch_nor_numpy() -> None:
    code = "import sys; sys.argv = ['interpret', '--help']\nfrom interpret.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\nprint(bool({'torch', 'numpy'} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip().endswith("False")
    for verb in VERBS:
        assert verb in finished.stdout


VERBS = [
    *"gallery train summary mine project filters probe occlude evolve neighbours attribute sanity".split(),
    *"plot report study".split(),
]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    finished = run_apart(verb, "--help")
    assert finished.returncode == 0 and f"Usage: interpret {verb} " in finished.stdout


def test_help_shows_text_in_brackets() -> None:
    assert "pip install 'interpret-cnn[demo]'" in " ".join(run_apart("gallery", "--help").stdout.split())
    listed = " ".join(run_apart("--help").stdout.split())
    assert "Mine, project and publish every unit as pages to open in a browser. mine Find" in listed


def test_version_prints_the_version() -> None:
    finished = run_apart("--version")
    assert (finished.returncode, finished.stdout) == (0, f"interpret {interpret.__version__}\n")


@pytest.mark.slow
def test_gallery_of_a_folder_and_then_from_its_study(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages"
    finished = run_apart(
        "gallery", "lenet", pictures, "--layers", "conv*", "--out", out, "-k", "4", "--batch-size", "5"
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip().splitlines()[-1] == f"Open {out / 'index.html'}"
    assert (out / "layers" / "conv2" / "49.html").exists()
    study = tmp_path / "pages.study"
    info = json.loads((study / "study.json").read_text())
    assert list(info["data"]["skipped"]) == ["broken.png"]
    assert info["settings"]["k"] == 4

    again = run_apart("gallery", study, "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    pages = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert pages == sorted(path.relative_to(again_out) for again_out in [tmp_path / "again"]
                           for path in again_out.rglob("*") if path.is_file())  # fmt: skip
    assert all((out / page).read_bytes() == (tmp_path / "again" / page).read_bytes() for page in pages)


@pytest.mark.slow
def test_a_study_is_reopened_from_any_folder(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a folder beside it has the name of a shipped model."""
    (tmp_path / "lenet").mkdir()
    monkeypatch.chdir(tmp_path)
    finished = run_apart("mine", "lenet", pictures, "--study", "len-study", "--layers", "conv1")
    assert finished.returncode == 0, finished.stderr
    monkeypatch.chdir(pictures)
    assert run_apart("project", tmp_path / "len-study").returncode == 0
    assert absolute_spec("net.py:build") == f"{pictures / 'net.py'}:build"
    assert absolute_spec("lenet", ["lenet"]) == "lenet"
    assert absolute_spec("00.png", ["lenet"]) == str(pictures / "00.png")


@pytest.mark.slow
def test_mine_then_project_by_other_rules(pictures: Path, tmp_path: Path) -> None:
    study = tmp_path / "the study"
    finished = run_apart("mine", "lenet", pictures, "--study", study, "--layers", "conv1")
    assert finished.returncode == 0
    assert f"Mined 20 units of 1 layer into {study}\nNext: interpret project '{study}', and then" in finished.stdout
    finished = run_apart("project", study, "--rule", "guided, gradient,guided")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == f"Pictures are in {study}/projections/guided and {study}/projections/gradient\n"
    assert Study.open(study).rules("conv1") == ["gradient", "guided"]
    assert (study / "projections" / "guided" / "conv1" / "0019.webp").exists()


@pytest.mark.slow
def test_a_gallery_by_several_rules_shows_each(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages"
    finished = run_apart("gallery", "lenet", pictures, "--layers", "conv1", "--out", out, "--rule", "deconvnet,guided",
                         "--synthesise", "0")  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    page = (out / "layers" / "conv1" / "3.html").read_text()
    assert "projections/deconvnet/conv1/0003.webp" in page and "projections/guided/conv1/0003.webp" in page
    assert page.count('name="rule"') == 2  # which one is seen can be chosen


def test_a_warning_is_printed_once_as_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with in_one_sentence():
            for _ in range(3):
                warn("the image is 'image'; left aside: 'text'")
        assert capsys.readouterr().err == "interpret: the image is 'image'; left aside: 'text'\n"
    with pytest.warns(UserWarning, match="outside"):  # where Python shows warnings as before
        warn("outside")


@pytest.mark.parametrize("error", [ENOSPC, EACCES, EROFS])
def test_errors_of_the_system_are_one_sentence(
    error: int, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object) -> None:
        raise OSError(error, os.strerror(error), str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    for arguments in (
        ("mine", "lenet", pictures, "--study", tmp_path / "study", "--workers", "0"),
        ("filters", "lenet", "--out", tmp_path / "filters.png"),
    ):
        said = refused(capsys, monkeypatch, *arguments)
        assert said.startswith("interpret: the system cannot read or write '") and os.strerror(error) in said
    assert not (tmp_path / "filters.png").exists()


def test_a_full_memory_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr("interpret.loading.loading.load", refuse)
    assert "--batch-size" in refused(capsys, monkeypatch, "filters", "lenet")


# what others wrote


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        ("filters lenet --out", "figs.png"),
        ("probe lenet {pictures} --out", "figs.svg"),
        ("neighbours lenet {pictures} --out", "figs.pdf"),
        ("plot {tmp}/study --out", "figs.png"),
        ("report {tmp}/study --out", "report.html"),
        ("gallery lenet {pictures} --out", "pages"),
        ("train lenet --out", "copy"),
    ],
)
def test_foreign_files_are_not_replaced(
    arguments: str, out: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Neither a folder with files nor a file; and a link is not followed to one."""
    (tmp_path / "study").mkdir()
    (tmp_path / "thesis.txt").write_text("years of work")
    made = {
        "folder": lambda path: (path.mkdir(), (path / "thesis.txt").write_text("years of work")),
        "file": lambda path: path.write_text("years of work"),
        "link": lambda path: path.symlink_to(tmp_path / "thesis.txt"),
        "below": lambda path: path.parent.write_text("years of work"),
    }
    for kind, make in made.items():
        (tmp_path / kind).mkdir()
        place = tmp_path / kind / (out if kind != "below" else f"file/{out}")
        make(place)
        before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
        filled = arguments.format(pictures=pictures, tmp=tmp_path)
        if "study" not in filled:
            refused(capsys, monkeypatch, *filled.split(), place)
        else:
            assert run_apart(*filled.split(), place).returncode == 2
        assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before, kind


@pytest.mark.slow
def test_own_files_are_replaced_unless_they_were_changed(tmp_path: Path) -> None:
    for name in ("filters.png", "filters.svg", "filters.pdf"):
        figure = tmp_path / name
        assert run_apart("filters", "lenet", "--out", figure).returncode == 0
        first = figure.read_bytes()
        assert run_apart("filters", "lenet", "conv2", "--out", figure).returncode == 0
        assert figure.read_bytes() != first
        figure.write_bytes(figure.read_bytes().replace(b"i", b"j", 1))
        changed = figure.read_bytes()
        finished = run_apart("filters", "lenet", "--out", figure)
        assert finished.returncode == 2 and "is not as interpret wrote it, or not by interpret" in finished.stderr
        assert figure.read_bytes() == changed


@pytest.mark.slow
def test_a_gallery_in_the_working_directory(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inode = tmp_path.stat().st_ino
    study = tmp_path.with_name(tmp_path.name + ".a study")
    arguments = ("--layers", "conv1", "--out", ".", "--study", study, "--synthesise", "0")
    for rule in ("deconvnet", "guided"):
        finished = run_apart("gallery", "lenet", pictures, *arguments, "--rule", rule)
        assert finished.returncode == 0, finished.stderr
        assert tmp_path.stat().st_ino == inode and Path("index.html").is_file()


@pytest.mark.slow
def test_evolve_and_neighbours_over_a_study(pictures: Path, tmp_path: Path) -> None:
    study, figure = tmp_path / "study", tmp_path / "evolution.svg"
    arguments = ("--layers", "conv2", "--units", "2", "--study", study, "--out", figure)
    finished = run_apart("evolve", "lenet", pictures, *arguments)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip().splitlines()[-1] == f"Open {figure}" and "<svg" in figure.read_text()
    # a study knows its model, the model's epochs, and its images
    assert run_apart("evolve", study, "--units", "1", "--layers", "conv1", "--out", figure).returncode == 0
    finished = run_apart("neighbours", study, "--queries", "0, 5", "-k", "3", "--out", tmp_path / "near.png")
    assert finished.returncode == 0, finished.stderr
    assert "12 images" in finished.stderr
    assert Study.open(study).results == [("evolution", "conv1"), ("evolution", "conv2"), ("neighbours", "relu3")]
    near = Study.open(study).result("neighbours", "relu3")
    assert near.query_names == ["00.png", "05.png"] and near.items.shape == (2, 3)
    assert (study / "features" / "relu3" / "features.npy").exists()


@pytest.mark.slow
def test_evolve_over_a_folder_of_checkpoints(pictures: Path, tmp_path: Path) -> None:
    epochs = shipped_models() / "lenet" / "epochs"
    for epoch in (5, 40):
        shutil.copy(epochs / f"{epoch:02d}.safetensors", tmp_path / f"checkpoint-{epoch}.safetensors")
    chosen = ("--checkpoints", tmp_path, "--layers", "conv1", "--units", "1")
    finished = run_apart("evolve", "lenet", pictures, *chosen, "--out", tmp_path / "evolution.png")
    assert finished.returncode == 0, finished.stderr
    assert "12 images" in finished.stderr and "learnt nothing" not in finished.stderr
    with Image.open(tmp_path / "evolution.png") as figure:
        assert figure.width > 1000


@pytest.mark.slow
def test_neighbours_of_a_model_and_images(pictures: Path, tmp_path: Path) -> None:
    chosen = ("--queries", pictures, "--metric", "cosine", "--layer", "conv2", "--average")
    finished = run_apart("neighbours", "lenet", pictures, *chosen, "--out", tmp_path / "near.pdf")
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "near.pdf").read_bytes().startswith(b"%PDF") and "cosine" in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["near.pdf"]


@pytest.mark.slow
def test_occlude_keeps_its_result_in_a_study_that_plots_it_again(pictures: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    chosen = ("--size", "9", "--stride", "6", "--images", "3", "--study", study, "--layer", "conv2")
    finished = run_apart("occlude", "lenet", pictures, *chosen, "--out", tmp_path / "occlusion.png")
    assert finished.returncode == 0, finished.stderr
    assert Study.open(study).results == [("occlusion", "conv2")]
    # one that does not decode is passed over
    assert Study.open(study).result("occlusion", "conv2").probabilities.shape == (3, 5, 5)
    assert run_apart("plot", study, "occlusion", "--out", tmp_path / "again.png").returncode == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "occlusion.png").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "probe --transform rotation,translation --images all --labels predicted --batch-size 2 --layers conv*",
        "evolve --layers conv2 --units 2 --batch-size 2",
        "occlude --size 9 --stride 6 --images 2 --layer conv2",
        "neighbours --queries 0,5 -k 3 --batch-size 2",
    ],
)
def test_an_interrupted_analysis_continues_to_the_same_study(
    arguments: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By someone who presses Ctrl-C after ever more pictures have been read, until none are left."""
    read, verb, *options = FileImages._read, *arguments.split()
    patience, left = math.inf, math.inf

    def impatient(self: FileImages, source: int, **how: Any) -> Image.Image:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return read(self, source, **how)

    monkeypatch.setattr(FileImages, "_read", impatient)

    def outcome(study: Path) -> int | str | None:
        nonlocal left
        left = patience
        where = ["--workers", "0"] if verb != "occlude" else []
        where += ["--study", str(study), "--out", str(tmp_path / "figure.png")]
        monkeypatch.setattr(sys, "argv", ["interpret", verb, "lenet", str(pictures), *options, *where])
        try:
            main()
        except SystemExit as exit_:
            return exit_.code
        return 0

    assert not outcome(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert not any("unfinished" in name for name in whole)
    kept: set[str] = set()
    patience, attempts = 5.0, 0
    while status := outcome(tmp_path / "study"):
        assert status == 130
        assert (
            capsys.readouterr().err.strip().splitlines()[-1].startswith("interpret: Interrupted. Finished work is kept")
        )
        kept |= {name for name in contents(tmp_path / "study") if "unfinished" in name}
        attempts, patience = attempts + 1, patience + 6
    assert attempts > 1 and (kept or verb == "occlude"), kept
    assert contents(tmp_path / "study") == whole


@pytest.mark.slow
def test_filters_and_summary(tmp_path: Path) -> None:
    assert run_apart("filters", "lenet", "--out", tmp_path / "filters.svg").returncode == 0
    assert "<svg" in (tmp_path / "filters.svg").read_text()
    finished = run_apart("summary", "lenet")
    assert "20 × 24 × 24" in finished.stdout and "14 × 14" in finished.stdout
    assert "11,689,512" in run_apart("summary", "torchvision:resnet18").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gallery", "lennet", "{pictures}"], "did you mean 'lenet'"),
        (["gallery", "lenet", "{pictures}", "--layers", "conv3"], "unknown layer 'conv3'"),
        (["gallery", "lenet", "{pictures}", "-k", "0"], "'-k': 0 is no whole number from 1 to 65,536"),
        (["gallery", "lenet", "{pictures}", "--rule", "deconv"], "did you mean 'deconvnet'"),
        (["gallery", "lenet", "{pictures}", "--batch-size", "0"], "'--batch-size': 0 is no whole number from 1"),
        (["gallery", "lenet", "{pictures}", "--workers", "-1"], "'--workers': -1 is no whole number from 0 to 256"),
        (["gallery", "lenet", "{pictures}", "--dtype", "float8"], "unknown value 'float8': did you mean 'float32'"),
        (["gallery", "lenet", "{pictures}", "--device", "tpu9"], "device 'tpu9'"),
        (["gallery", "lenet", "{pictures}", "--weights", "{tmp}/none.safetensors"], "none.safetensors"),
        (["gallery", "lenet", "{tmp}/nothing"], "does not exist"),
        (["gallery", "lenet", "{tmp}/empty"], "no image"),
        (["gallery", "lenet", "{tmp}/broken"], "broken.png"),
        (["gallery", "torchvision:resnet1", "{pictures}"], "resnet18"),
        (["gallery", "lenet", "{tmp}", "--out", "{tmp}/pages"], "would lie among the images of"),
        (["gallery", "lenet", "{tmp}/empty", "--out", "{tmp}/p", "--study", "{tmp}/empty/s"], "would lie among"),
        (["mine", "lenet", ".", "--study", "kept"], "the study 'kept' would lie among the images of '.'"),
        (["gallery", "torchvison:resnet18", "{pictures}"], "did you mean 'torchvision:resnet18'"),
        (["gallery", "keras:resnet", "{pictures}"], "models of the kind 'keras:' are not supported: give a PyTorch"),
        (["gallery", "hf:microsoft/resnet-50", "{pictures}"], "models of the kind 'hf:' are not supported"),
        (["gallery", "microsoft/resnet-50", "{pictures}"], "no model is downloaded by such a name"),
        (["gallery", "onnx:net.onnx", "{pictures}"], "models of the kind 'onnx:' are not supported: give a PyTorch"),
        (["gallery", "{tmp}/none.h5", "{pictures}"], "none.h5' does not exist: give the path of a file of Keras"),
        (["gallery", "net.keras", "{pictures}"], "model 'net.keras' does not exist: give the path of a file of Keras"),
        (["gallery", "net.onnx", "{pictures}"], "model 'net.onnx' does not exist: give the path of an ONNX file"),
        (
            ["gallery", "net.pt2", "{pictures}"],
            "model 'net.pt2' does not exist: give the path of a file of torch.export",
        ),
        (["gallery", "net.tflite", "{pictures}"], "is a TensorFlow model, which is not supported"),
        (["gallery", "https://example.org/net.pth", "{pictures}"], "is a web address"),
        (["gallery", "net.pth", "{pictures}"], "is a file of weights, not a model: name the network"),
        (["gallery", "lenet", "{pictures}", "--rule", "deconvnet,guide"], "did you mean 'guided'"),
        (["gallery", "lenet", "{pictures}", "--rule", ","], "--rule is empty"),
        (["evolve", "lenet", "{pictures}", "--rule", "deconvnet,guided"], "--rule must be one here"),
        (["project", "{tmp}/empty"], "is no study"),
        (["summary", "lenet", "--input-shape", "3,4"], "--input-shape"),
        (["summary", "lenet", "--input-shape", "1,4,4"], "4"),
        (["filters", "lenet", "--out", "{tmp}/x.bmp"], ".png, .svg or .pdf"),
        (["evolve", "lenet", "{pictures}", "--out", "{tmp}/x.bmp"], ".png, .svg or .pdf"),
        (["evolve", "lenet"], "'lenet' is no study's folder: give the images, too, as DATA"),
        (["evolve", "lenet5", "{pictures}"], "model folder 'lenet5' keeps no epochs"),
        (["evolve", "squeezenet1_1", "{pictures}"], "checkpoints 'squeezenet1_1' are not a folder: give one"),
        (
            ["evolve", "torchvision:resnet18", "{pictures}", "--checkpoints", "{tmp}/empty"],
            "hold no file with an epoch",
        ),
        (["evolve", "lenet", "{pictures}", "--units", "0"], "'--units': 0 is no whole number from 1"),
        (["neighbours", "lenet", "{pictures}", "-k", "12"], "k=12 neighbours"),
        (["neighbours", "lenet", "{pictures}", "--queries", "3,99"], "queries must be from 0 to 12"),
        (
            ["neighbours", "lenet", "{pictures}", "--metric", "manhattan"],
            "choose from euclidean, cosine",
        ),
        (["neighbours", "lenet", "{pictures}", "--layer", "fc3"], "unknown layer 'fc3'"),
        (["filters", "lenet", "--scale", "none"], "--scale"),
        (["gallery", "lenet", "{pictures}", "-k", "2147483648"], "'-k': 2147483648 is no whole number from 1"),
        (["gallery", "lenet", "{pictures}", "--seed=-99999999999999999999"], "999 is no whole number from 0"),
        (["probe", "lenet", "{pictures}", "--direction", "nonsense"], "unknown value 'nonsense': choose from vertical"),
        (["probe", "lenet", "{pictures}", "--transform", "scale", "--direction", "vertical"], "is of a translation"),
        (["probe", "lenet", "{pictures}", "--images", "9" * 5000], "--images must be a number of at least 1"),
        (["attribute", "lenet", "{pictures}", "--target", "²"], "'²'"),
        (["attribute", "lenet", "{pictures}", "--target", "9" * 5000], "'999"),
        (["summary", "lenet", "--input-shape", "1,999999999,999999999"], "choose a smaller input"),
        (["summary", "lenet", "--input-shape", "1,-4,4"], "whole numbers above 0"),
        (["summary", "lenet", "--format", "yaml"], "unknown value 'yaml'"),
        (["filters", "lenet", "--out", "afile/x.png"], "'{tmp}/afile' is a file, where a folder is needed"),
        (["filters", "lenet", "--out", "/dev/null/x.png"], "'/dev/null' is a file, where a folder is needed"),
        (["filters", "lenet", "--out", "loop/x.png"], "loop"),
        (["attribute", "lenet", "{pictures}", "--out", "loop/x.png"], "loop"),
        (["filters", "lenet", "--out", "n" * 300 + ".png"], "File name too long; choose a shorter name"),
        (["filters", "lenet", "--out", "empty/" * 900 + "x.png"], "File name too long; choose a shorter name"),
        (["train", "{tmp}/empty"], "recipe.toml"),
        (["nothing"], "No such command"),
    ],
)
def test_invalid_input_is_one_sentence(
    arguments: list[str],
    sentence: str,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "afile").touch()
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    said = refused(capsys, monkeypatch, *(part.format(pictures=pictures, tmp=tmp_path) for part in arguments))
    assert sentence.format(tmp=tmp_path) in said or arguments == ["nothing"]
    assert sorted(tmp_path.rglob("*")) == before, "something was left on disk"


def test_a_folder_with_other_content_is_refused_before_anything_runs(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "thesis.tex' was not written by interpret" in refused(
        capsys, monkeypatch, "gallery", "lenet", pictures, "--out", tmp_path
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_demo_packages_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("interpret.loading.packages.find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert "pip install 'interpret-cnn[demo]'" in refused(capsys, monkeypatch, "gallery")


@pytest.mark.parametrize("verb", ["mine", "gallery", "probe", "neighbours", "occlude", "evolve"])
def test_a_device_is_checked_before_anything_is_loaded(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("interpret.loading.loading.load", never)
    monkeypatch.setattr("interpret.images.opening.open_images", never)
    study = ["--study", tmp_path / "study"]
    assert refused(capsys, monkeypatch, verb, "lenet", "digits", *study, "--device", "cuda:77") == (
        "interpret: device 'cuda:77' is not available here: choose cpu, or leave --device out"
    )
    assert list(tmp_path.iterdir()) == []


def test_project_checks_its_device_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    command(monkeypatch, "mine", "lenet", "digits", "--study", study, "--layers", "conv1", "--part", "1/40")
    capsys.readouterr()
    monkeypatch.setattr("interpret.loading.loading.load", lambda *_, **__: pytest.fail("loaded"))
    said = refused(capsys, monkeypatch, "project", study, "--device", "cuda:77", "--batch-size", 4, "--workers", 1)
    assert said == "interpret: device 'cuda:77' is not available here: choose cpu, or leave --device out"
