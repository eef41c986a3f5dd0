from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.files import contents
from interpret.images import datasets
from interpret.images.datasets import Dataset, load_dataset
from interpret.loading.loading import load
from interpret.loading.recipes import AugmentTable, read_recipe
from interpret.network.preprocess import Preprocess
from interpret.support.errors import InterpretError
from interpret.support.manifest import read_manifest
from interpret.training import training
from interpret.training.augmentation import augmentation
from interpret.training.losses import map_criterion
from interpret.training.measured_card import with_measurement
from interpret.training.reproducibility import seeded
from interpret.training.training import train

NETWORK = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, 10),
    )
"""

RECIPE = """
[model]
title = "Tiny"

[input]
size = [28, 28]
channels = "L"

[data]
name = "few"

[augment]
translate = 2
rotate = 10

[train]
lr = 0.05
momentum = 0.9
schedule = "cosine"
batch_size = 32
epochs = 4
keep = [1, 3, 4]
seed = 7
"""


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A data set of 240 digits, 80 of them held out."""
    digits = load_dataset("digits")
    some = np.arange(0, 5000, 21)[:239]
    held_out = np.arange(239) % 3 == 0
    dataset = Dataset("few", "A few digits", digits.images[some], digits.labels[some], digits.classes, held_out)
    monkeypatch.setitem(datasets.DATASETS, "few", lambda: dataset)
    return dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "tiny")


def model_folder(path: Path, recipe: str = RECIPE, network: str = NETWORK) -> Path:
    path.mkdir()
    (path / "model.py").write_text(network)
    (path / "recipe.toml").write_text(recipe)
    return path


def changed(folder: Path, old: str, new: str) -> Path:
    recipe = (folder / "recipe.toml").read_text()
    assert old in recipe
    (folder / "recipe.toml").write_text(recipe.replace(old, new))
    return folder


def test_training_writes_weights_kept_epochs_and_card(folder: Path) -> None:
    result = train(folder)
    assert sorted(contents(folder)) == [
        "card.md", "epochs/01.safetensors", "epochs/03.safetensors", "epochs/04.safetensors",
        "interpret.sha256", "model.py", "recipe.toml", "weights.safetensors",
    ]  # fmt: skip
    assert not (folder / ".unfinished").exists()
    assert set(read_manifest(folder) or {}) == {name for name in contents(folder) if name.endswith("safetensors")}
    assert (folder / "epochs/04.safetensors").read_bytes() == (folder / "weights.safetensors").read_bytes()
    assert [epoch.number for epoch in result.epochs] == [1, 2, 3, 4]
    assert result.epochs[-1].train.loss < result.epochs[0].train.loss
    assert result.held_out.accuracy > 0.5
    assert (result.train.images, result.held_out.images) == (159, 80)


def test_training_in_double_precision(folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        result, network = train(folder), load(folder).module
    finally:
        torch.set_default_dtype(torch.float32)
    assert {weight.dtype for weight in network.parameters()} == {torch.float64}
    assert result.held_out.accuracy > 0.5


def test_scores_are_those_of_the_written_weights(folder: Path, few: Dataset) -> None:
    result = train(folder)
    module = load(folder).module
    for score, chosen in ((result.train, ~few.held_out), (result.held_out, few.held_out)):
        images, labels = torch.from_numpy(few.images[chosen])[:, None] / 255, torch.from_numpy(few.labels[chosen])
        with torch.inference_mode():
            outputs = module(images)
        assert score.correct == (outputs.argmax(1) == labels).sum()
        assert score.loss == pytest.approx(torch.nn.functional.cross_entropy(outputs, labels).item(), rel=1e-5)
    row = f"| held out | 80 | {result.held_out.correct} | {result.held_out.accuracy:.2%} |"
    assert row in (folder / "card.md").read_text().splitlines()


def test_the_same_recipe_gives_the_same_bytes_and_leaves_the_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    environment = dict(os.environ)
    torch.manual_seed(1)
    train(model_folder(tmp_path / "a"))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    train(model_folder(tmp_path / "b"))
    assert seeded == []  # the generators of devices that it does not run on
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), state) and dict(os.environ) == environment
    assert not torch.are_deterministic_algorithms_enabled()


def test_another_seed_gives_other_weights(folder: Path, tmp_path: Path) -> None:
    train(folder, epochs=1)
    train(folder, epochs=1, seed=8, out=tmp_path / "other")
    assert (folder / "weights.safetensors").read_bytes() != (tmp_path / "other/weights.safetensors").read_bytes()


@pytest.fixture
def interrupt_at_batch(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A list that holds the batch, counted from 1, at which training stops; empty: at none."""
    at: list[int] = []
    seen = 0
    original = training._Run._answer

    def answer_or_stop(run: training._Run, items: np.ndarray, augmented: bool) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal seen
        seen += run.module.training
        if at and seen == at[0]:
            at.pop(0)
            raise KeyboardInterrupt
        return original(run, items, augmented)

    monkeypatch.setattr(training._Run, "_answer", answer_or_stop)
    yield at


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        ('optimizer = "sgd"\nmomentum = 0.9', '"cosine"'),
        ('optimizer = "adam"', '"step"\nsteps = [2]'),
        ('optimizer = "sgd"', '"constant"'),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path, interrupt_at_batch: list[int], optimizer: str, schedule: str
) -> None:
    recipe = RECIPE.replace("momentum = 0.9", optimizer).replace('"cosine"', schedule)
    whole, parts = (model_folder(tmp_path / name, recipe) for name in ("whole", "parts"))
    train(whole)
    # 5 batches an epoch: in the middle of the first, the second and the fourth
    interrupt_at_batch.extend([20 + 3, 20 + 3 + 8, 20 + 3 + 8 + 13])
    for complete in (0, 1, 3):
        with pytest.raises(KeyboardInterrupt):
            train(parts)
        assert not (parts / "weights.safetensors").exists() and not (parts / "card.md").exists()
        assert (parts / ".unfinished").exists() == (complete > 0)
    result = train(parts)
    assert contents(parts) == contents(whole)
    assert [epoch.number for epoch in result.epochs] == [1, 2, 3, 4]


# bytes are the same for the same number of threads
THREADS_THEN_TRAIN = (
    "import sys, torch, interpret; torch.set_num_threads(int(sys.argv[2])); interpret.train(sys.argv[1])"
)


@pytest.mark.slow
def test_a_killed_training_continues(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: Dataset
) -> None:
    # the other process has its few images from files of Fashion-MNIST's form
    for part, chosen in (("train", ~few.held_out), ("t10k", few.held_out)):
        for kind, values in (("images-idx3", few.images[chosen]), ("labels-idx1", few.labels[chosen])):
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            content = gzip.compress(header + values.astype(np.uint8).tobytes())
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(content)
    monkeypatch.setenv("INTERPRET_FASHION_MNIST", str(tmp_path))
    changed(changed(folder, '"few"', '"fashion-mnist"'), "epochs = 4", "epochs = 12")
    whole = shutil.copytree(folder, tmp_path / "whole")
    train(whole)

    command = [sys.executable, "-c", THREADS_THEN_TRAIN, str(folder), str(torch.get_num_threads())]
    with subprocess.Popen(command) as process:
        while not (folder / ".unfinished/state.pt").exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "weights.safetensors").exists()
    train(folder)
    assert contents(folder) == contents(whole)


def test_resume_false_starts_again(folder: Path, interrupt_at_batch: list[int]) -> None:
    interrupt_at_batch.append(8)
    with pytest.raises(KeyboardInterrupt):
        train(folder)
    (folder / ".unfinished/state.pt").write_bytes(b"nothing")
    with pytest.raises(InterpretError, match="is damaged: delete that folder"):
        train(folder)
    assert len(train(folder, resume=False).epochs) == 4


def test_foreign_files_in_a_model_folder_are_kept(folder: Path, tmp_path: Path, interrupt_at_batch: list[int]) -> None:
    for name in ("weights.safetensors", "epochs/01.safetensors", "epochs/notes.txt"):
        mine = folder / name
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        interrupt_at_batch[:] = [1]  # which is not reached: it is refused before the work
        with pytest.raises(InterpretError, match=f"{name}' was not written by interpret: move it"):
            train(folder, epochs=1)
        assert mine.read_text() == "mine"
        mine.unlink()
    interrupt_at_batch.clear()
    (folder / "epochs").rmdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "card.md").write_text("# Mine\n")
    train(folder, epochs=3)
    train(folder, epochs=1)
    assert [path.name for path in (folder / "epochs").iterdir()] == ["01.safetensors"]
    assert (folder / "notes.txt").read_text() == "mine" and (folder / "card.md").read_text().startswith("# Mine\n")
    (folder / "weights.safetensors").write_text("tuned by hand")
    with pytest.raises(InterpretError, match=r"weights\.safetensors' has been changed since interpret wrote it"):
        train(folder, epochs=1)
    train(folder, epochs=1, out=tmp_path / "copy")
    train(folder, epochs=1, seed=1, out=tmp_path / "copy")
    assert (tmp_path / "copy/model.py").read_bytes() == (folder / "model.py").read_bytes()


def test_an_interrupted_training_of_another_recipe_is_not_continued(
    folder: Path, interrupt_at_batch: list[int]
) -> None:
    interrupt_at_batch.append(8)
    with pytest.raises(KeyboardInterrupt):
        train(folder)
    changed(folder, "lr = 0.05", "lr = 0.06")
    with pytest.raises(InterpretError, match="by another recipe: delete"):
        train(folder)
    changed(folder, "lr = 0.06", "lr = 0.05")
    assert len(train(folder).epochs) == 4


def test_older_results_are_kept_until_training_is_complete(folder: Path, interrupt_at_batch: list[int]) -> None:
    train(folder)
    before = contents(folder)
    changed(folder, "seed = 7", "seed = 8")
    interrupt_at_batch.append(20 + 13)
    with pytest.raises(KeyboardInterrupt):
        train(folder)
    after = contents(folder)
    assert all(after[name] == content for name, content in before.items() if name != "recipe.toml")
    changed(folder, "keep = [1, 3, 4]", "keep = [2]")
    train(folder, resume=False)
    assert [path.name for path in (folder / "epochs").iterdir()] == ["02.safetensors"]
    changed(folder, "keep = [2]", "keep = []")
    train(folder)
    assert not (folder / "epochs").exists()


def test_epochs_override_keeps_those_up_to_there(folder: Path) -> None:
    assert len(train(folder, epochs=2).epochs) == 2
    assert [path.name for path in (folder / "epochs").iterdir()] == ["01.safetensors"]
    with pytest.raises(InterpretError, match="epochs=0"):
        train(folder, epochs=0)


def test_out_becomes_a_model_folder_and_the_source_stays(folder: Path, tmp_path: Path) -> None:
    (folder / "card.md").write_text("# Mine\n")
    before = contents(folder)
    out = tmp_path / "deep" / "out"
    assert train(folder, epochs=1, out=out).folder == out
    assert contents(folder) == before
    assert sorted(contents(out)) == [
        "card.md",
        "epochs/01.safetensors",
        "interpret.sha256",
        "model.py",
        "recipe.toml",
        "weights.safetensors",
    ]
    assert (out / "card.md").read_text().startswith("# Mine\n")
    train(folder, epochs=1, out=out)  # again: it holds the same model
    (out / "model.py").write_text("def build(): ...")
    with pytest.raises(InterpretError, match="has been changed since interpret wrote it"):
        train(folder, epochs=1, out=out)


def test_out_with_other_content_is_refused_unchanged(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InterpretError, match="holds something else"):
        train(folder, epochs=1, out=out)
    with pytest.raises(InterpretError, match="cannot be written"):
        train(folder, epochs=1, out=out / "thesis.txt")
    assert contents(out) == {"thesis.txt": b"mine"}


def test_a_folder_that_cannot_be_written_names_the_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)
    with pytest.raises(InterpretError, match=r"cannot be written: name another folder with out=\.\.\. \(--out"):
        train(folder)


def test_a_model_of_the_installed_package_is_never_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "__file__", str(folder.parent / "training" / "training.py"))
    with pytest.raises(InterpretError, match="belongs to the installed package"):
        train(folder)


def test_a_loss_that_is_not_finite_says_to_lower_the_rate(folder: Path) -> None:
    changed(folder, "lr = 0.05", "lr = 1e30")
    with pytest.raises(InterpretError, match="in epoch 1: lower"):
        train(folder)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("nn.Linear(256, 10)", "nn.Linear(256, 9)", r"answers \[2, 9\] to 2 images .*not \[2, 10\]"),
        ("nn.Linear(256, 10)", "nn.Linear(255, 10)", r"\(1, 28, 28\) does not fit .* layer '5' \(Linear\)"),
        ("def build()", "def make()", "build"),
        ("from torch import nn", "import no_such_module", "no_such_module"),
    ],
)
def test_a_network_that_does_not_fit(folder: Path, old: str, new: str, sentence: str) -> None:
    (folder / "model.py").write_text(NETWORK.replace(old, new))
    with pytest.raises(InterpretError, match=sentence):
        train(folder)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[augment]", "[augmentation]", r"unknown table 'augmentation': did you mean 'augment'"),
        ("momentum = 0.9", "momentun = 0.9", r"unknown key in \[train\] 'momentun': did you mean 'momentum'"),
        ("rotate = 10", "rotation = 10", r"unknown key in \[augment\] 'rotation': did you mean 'rotate'"),
        ('name = "few"', 'name = "digit"', r"unknown \[data\] name 'digit': did you mean 'digits'"),
        ('"cosine"', '"cosin"', r"unknown \[train\] schedule 'cosin': did you mean 'cosine'"),
        ("lr = 0.05", 'lr = "fast"', r"\[train\] lr must be a number, not 'fast'"),
        ("lr = 0.05", "lr = true", r"\[train\] lr must be a number, not True"),
        ("lr = 0.05", "lr = 0", "needs lr above 0"),
        ("lr = 0.05", "", r"\[train\] has no key 'lr': add it"),
        ("epochs = 4", "epochs = 4.5", r"\[train\] epochs must be a whole number, not 4.5"),
        ("keep = [1, 3, 4]", "keep = [1, 5]", "keep must lie within epochs 1 to 4"),
        ("keep = [1, 3, 4]", "keep = 3", "keep must be a list of whole numbers, not 3"),
        ("keep = [1, 3, 4]", 'keep = ["1"]', "keep must be a whole number, not '1'"),
        ('"cosine"', '"step"', "do not go together"),
        ("momentum = 0.9", 'momentum = 0.9\noptimizer = "adam"', "momentum is for optimizer = 'sgd'"),
        ("momentum = 0.9", "momentum = 1.5", "needs momentum from 0 to below 1"),
        ("size = [28, 28]", "size = [28]", "size must be a list of 2 whole numbers"),
        ("size = [28, 28]", "size = [0, 28]", "at least 1×1"),
        ('channels = "L"', 'channels = "grey"', r"unknown \[input\] channels 'grey'"),
        ("rotate = 10", "rotate = -10", "needs translate and rotate of at least 0"),
        ("translate = 2", "translate = 29", "translate of 29 pixels"),
        ("translate = 2", "fill = 256", r"\[augment\] fill must be a grey level from 0 to 255, not 256"),
        ('name = "few"', 'name = "emojis"', r"unknown \[data\] name 'emojis': did you mean 'emoji'"),
        ('title = "Tiny"', "untrained = 1", r"\[model\] untrained must be true or false, not 1"),
        ('title = "Tiny"', 'classes_of = "imagenet1k"', r"unknown \[model\] classes_of .* did you mean 'imagenet'"),
        ('title = "Tiny"', 'classes_of = "imagenet"\nclasses = ["a"]', "names its classes twice"),
        ('title = "Tiny"', 'classes = ["a", "b"]', "classes are 2 where data set 'few' has 10"),
        ('[data]\nname = "few"', "", r"there is no table \[data\]: add it"),
        ("[train]", "[train", "is not TOML"),
    ],
)
def test_invalid_recipes(folder: Path, old: str, new: str, sentence: str) -> None:
    changed(folder, old, new)
    with pytest.raises(InterpretError, match=sentence) as error:
        train(folder)
    assert "\n" not in str(error.value)
    assert sorted(contents(folder)) == ["model.py", "recipe.toml"]


def test_folders_that_are_not_model_folders(folder: Path) -> None:
    with pytest.raises(InterpretError, match="unknown model folder 'lenet6': did you mean 'lenet' or 'lenet5'"):
        train("lenet6")
    (folder / "recipe.toml").unlink()
    with pytest.raises(InterpretError, match=r"has no recipe.toml: a model folder has model.py and recipe.toml"):
        train(folder)


def test_map_criterion_is_equation_9() -> None:
    distances = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20
    labels = torch.tensor([0, 2, 1, 1, 0])
    right = distances[range(5), labels]
    expected = (right + torch.log(np.exp(-10) + torch.exp(-distances).sum(1))).mean()
    torch.testing.assert_close(map_criterion(-distances, labels), expected)


def test_augmentation_moves_by_whole_pixels_and_uncovers_black() -> None:
    preprocess = Preprocess((9, 9), channels="L", mean=(0.5,))
    move = augmentation(AugmentTable(translate=2), preprocess)
    image = torch.full((1, 9, 9), -0.5)
    image[0, 4, 4] = 1.0
    with seeded(0, 0, torch.device("cpu")):
        moved = [move(image) for _ in range(200)]
    places = {tuple((one[0] == 1).nonzero()[0].tolist()) for one in moved}
    assert places == {(y, x) for y in range(2, 7) for x in range(2, 7)}
    assert all(one.sum() == image.sum() for one in moved)


def test_augmentation_uncovers_the_grey_level_of_the_recipe() -> None:
    preprocess = Preprocess((8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    move = augmentation(AugmentTable(translate=3, fill=255), preprocess)
    white = torch.tensor([(1 - 0.5) / 0.2, (1 - 0.4) / 0.3, (1 - 0.3) / 0.4])
    torch.manual_seed(0)
    moved = [move(torch.zeros(3, 8, 8)) for _ in range(20)]
    assert any((image != 0).any() for image in moved)
    for image in moved:
        uncovered = image.flatten(1).T[(image != 0).any(0).flatten()]
        torch.testing.assert_close(uncovered, white.expand_as(uncovered))


def test_no_augmentation_keeps_the_image() -> None:
    image = torch.rand(1, 9, 9)
    assert augmentation(AugmentTable(), Preprocess((9, 9), channels="L"))(image) is image


CARD = "# Mine\n\nBefore.\n\n<!-- measured:begin -->\nold\n<!-- measured:end -->\n\nAfter.\n"


def test_the_card_changes_between_its_markers_only() -> None:
    assert with_measurement(CARD, "new") == CARD.replace("old", "new")
    assert with_measurement(with_measurement(CARD, "x\ny"), "new") == CARD.replace("old", "new")


@pytest.mark.parametrize("card", ["# Mine\n", "# Mine\n\n<!-- measured:begin -->\nno end\n", ""])
def test_a_card_without_both_markers_gets_them_at_its_end(card: str) -> None:
    block = "<!-- measured:begin -->\nnew\n<!-- measured:end -->\n"
    assert with_measurement(card, "new") == (card.rstrip() + "\n\n" + block).lstrip()
    assert with_measurement(with_measurement(card, "old"), "new").count("measured:end") == 1


def test_shipped_recipes_are_valid() -> None:
    for name in ("lenet", "lenet5"):
        recipe = read_recipe(Path(__file__).parents[2] / "models" / name / "recipe.toml")
        assert recipe.train.epochs == 64 and recipe.model.classes == tuple("0123456789")


DENSE = """from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
"""


@pytest.fixture
def dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder, and a data set with a class for each pixel: dark, grey or bright."""
    random = np.random.RandomState(0)
    labels = random.randint(3, size=(60, 6, 6)).repeat(2, 1).repeat(2, 2).astype(np.uint8)
    images = (labels * 100 + random.randint(50, size=labels.shape)).astype(np.uint8)
    names, held_out = ("dark", "grey", "bright"), np.arange(60) % 4 == 0
    dataset = Dataset("levels", "Levels", images, labels, names, held_out)
    monkeypatch.setitem(datasets.DATASETS, "levels", lambda: dataset)
    recipe = RECIPE.replace('"few"', '"levels"').replace("[28, 28]", "[12, 12]").replace("[1, 3, 4]", "[4]")
    recipe = re.sub(r"\[augment\].*?(?=\[)", "", recipe, flags=re.S)
    return model_folder(tmp_path / "dense", recipe.replace("batch_size = 32", "batch_size = 8"), DENSE)


def test_a_class_for_each_pixel_is_scored_by_its_overlap(dense: Path) -> None:
    result = train(dense)
    data = datasets.DATASETS["levels"]()
    model = load(dense)
    answers = torch.stack([model.preprocess(Image.fromarray(image)) for image in data.images[data.held_out]])
    with torch.no_grad():
        answers = model(answers).argmax(1).numpy()
    labels, expected = data.labels[data.held_out], []
    for label in range(3):
        both, either = (answers == label) & (labels == label), (answers == label) | (labels == label)
        expected.append(both.sum() / either.sum())
    assert result.held_out.overlaps == pytest.approx(expected) and min(expected) > 0.3
    assert result.held_out.mean_overlap == pytest.approx(np.mean(expected))
    assert result.held_out.accuracy == pytest.approx((answers == labels).mean())
    card = (dense / "card.md").read_text()
    assert f"| held out | 15 | {result.held_out.accuracy:.2%} | {np.mean(expected):.2%} |" in card
    assert f"| grey | {expected[1]:.2%} |" in card


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("8, 3, 3, padding=1", "8, 4, 3, padding=1", r"\[2, 4, 12, 12\] to .*, not \[2, 3, 12, 12\]: .* and pixel"),
        ("8, 3, 3, padding=1", "8, 3, 3", r"answers \[2, 3, 10, 10\] to 2 images"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_answer_for_each_pixel_is_refused(
    dense: Path, old: str, new: str, sentence: str
) -> None:
    (dense / "model.py").write_text(DENSE.replace(old, new))
    with pytest.raises(InterpretError, match=sentence):
        train(dense)


def test_augmentation_would_not_move_the_classes_of_pixels(dense: Path) -> None:
    recipe = dense / "recipe.toml"
    recipe.write_text(recipe.read_text() + "\n[augment]\nrotate = 10\n")
    with pytest.raises(InterpretError, match=r"\[augment\] moves images, and data set 'levels' has a class for each"):
        train(dense)
