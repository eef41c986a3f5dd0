"""Studies of parts of a data set, merged into one of the whole."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import interpret
from helpers.commands import command, refused
from helpers.files import contents, noise
from interpret import InterpretError, Study, merge_studies
from interpret.analyses.mining import miner
from interpret.analyses.mining.compute import merge_mined
from interpret.cli import main_job, subjects
from interpret.execution.reading import learn
from interpret.images.joined_images import JoinedImages
from interpret.images.opening import open_images

NETWORK = """
import torch
from torch import nn
import interpret

def build():
    convolutions = nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Conv2d(5, 4, 3)
    network = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(196, 2))
    for parameter in network.parameters():
        values = torch.arange(parameter.numel()).reshape(parameter.shape)
        parameter.data = torch.sin(values.float()) / 4
    return interpret.load(network, preprocess=interpret.Preprocess((20, 20)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and pictures of two classes, some of which do not decode."""
    folder = tmp_path_factory.mktemp("merging")
    (folder / "net.py").write_text(NETWORK)
    for number in range(23):
        file = folder / "data" / "ab"[number % 2] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise(20, 24, number // 2).save(file)
    for number in (0, 3, 18, 20, 22):  # among them all of a batch
        (folder / "data" / "ab"[number % 2] / f"{number:02}.png").write_bytes(b"torn")
    return folder


def test_merged_parts_are_the_bytes_of_one_pass(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mine(study: str, *options: object) -> None:
        how = ("--study", tmp_path / study, "--batch-size", 3, "-k", 4, "--workers", 0)
        command(monkeypatch, "mine", f"{folder}/net.py:build", folder / "data", *how, *options)

    mine("whole")
    for number in (1, 2, 3):
        mine(f"part{number}", "--part", f"{number}/3")
        read = np.concatenate([np.arange(*span) for span in _done(tmp_path / f"part{number}").tolist()])
        assert 6 <= len(read) <= 9
    parts = [tmp_path / f"part{number}" for number in (3, 1, 2)]
    capsys.readouterr()
    said = refused(capsys, monkeypatch, "merge", *parts[:2], "--study", tmp_path / "merged")
    assert said == "interpret: no part holds items 6 to 8 of data 'data': mine the part that is missing"
    command(monkeypatch, "merge", *parts, "--study", tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    command(monkeypatch, "merge", *parts, "--study", tmp_path / "merged")  # which is merged already
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")


DAYS = ("monday", "tuesday")


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, and pictures of two days under the same names, in batches of which some do not decode."""
    folder = tmp_path_factory.mktemp("days")
    (folder / "net.py").write_text(NETWORK)
    for day, count in zip(DAYS, (17, 11), strict=True):
        for number in range(count):
            file = folder / day / "images" / "ab"[number % 2] / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise(20, 24, count * number).save(file)
        for number in (1, 6, 7, 8):
            (folder / day / "images" / "ab"[number % 2] / f"{number:02}.png").write_bytes(b"torn")
        (folder / day / "images" / "a" / "notes.txt").touch()
    return folder


def test_merged_days_are_the_bytes_of_one_pass_over_them(
    days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(miner, "SAMPLE_SIZE", 9)  # of which some are in another sample of their day alone
    monkeypatch.setattr(miner, "DENSITY_SAMPLE_SIZE", 5)
    folders = [days / day / "images" for day in DAYS]
    for day, folder, parts in (("monday", folders[0], 2), ("tuesday", folders[1], 1)):
        for number in range(1, parts + 1):
            how = ("--study", tmp_path / f"{day}{number}", "--batch-size", 3, "-k", 4, "--workers", 0)
            command(monkeypatch, "mine", f"{days}/net.py:build", folder, *how, "--part", f"{number}/{parts}")
    at_once = {"workers": 0, "batch_size": 3}
    whole = subjects.open_study(tmp_path / "whole", f"{days}/net.py:build", list(map(str, folders)), **at_once)
    main_job._mine(whole, None, 4, 0)
    subjects.held.close()
    parts = [tmp_path / name for name in ("monday2", "tuesday1", "monday1")]
    capsys.readouterr()
    command(monkeypatch, "merge", *parts, "--study", tmp_path / "merged", "--workers", 0)
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    merged = Study.open(tmp_path / "merged")
    assert merged.info["data"]["items"] == 20 and merged.info["data"]["left_out"][".txt"][0] == 2
    assert sorted(merged.info["data"]["skipped"])[::4] == ["monday/images/a/06.png", "tuesday/images/a/06.png"]
    assert {record["name"].partition("/")[0] for record in merged.sources().values()} == set(DAYS)
    command(monkeypatch, "project", tmp_path / "merged", "--workers", 0)  # patches are cut from both
    assert set(merged.rules(merged.mined_layers[0])) == {"deconvnet"}


def test_days_that_do_not_fit_are_refused(days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    images = [torch.rand(6, 1, 8, 8), torch.rand(5, 1, 8, 8)]
    module = network()
    for number, own in enumerate(images):
        Study(tmp_path / str(number), module, own, batch_size=2).mine(k=2, part=(1, 1))
    Study(tmp_path / "weights", network(), images[1], batch_size=2).mine(k=2, part=(1, 1))
    joined = JoinedImages([open_images(own, module) for own in images])
    parts = [tmp_path / "0", tmp_path / "1"]
    for wrong, sentence in (
        (parts[:1], "no part holds items 6 to 7 of data 'tensor 1, tensor 2'"),
        ([*parts, parts[1]], "holds items 6 to 10, as another part does"),
        ([parts[0], tmp_path / "weights"], "holds results of other weights"),
    ):
        with pytest.raises(InterpretError, match=sentence):
            merge_studies(wrong, Study(tmp_path / "merged", module, joined))
        assert not (tmp_path / "merged").exists()
    merge_studies(parts, Study(tmp_path / "merged", module, joined))
    whole = Study(tmp_path / "whole", module, joined, batch_size=2)
    whole.mine(k=2)
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    with pytest.raises(InterpretError, match="data 'tensor' is given twice: leave it out once"):
        JoinedImages([open_images(images[0], module)] * 2)
    said = refused(capsys, monkeypatch, "merge", tmp_path / "whole", "--study", tmp_path / "other")
    assert "was not made by this command" in said


def _done(study: Path) -> torch.Tensor:
    return load_file(study / "mining.safetensors")["read/done"]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    images, module = torch.rand(12, 1, 8, 8), network()

    def part(name: str, part: tuple[int, int], other: nn.Module = module, data: torch.Tensor = images, size: int = 2,
             dtype: str = "float32", **how: int) -> Path:  # fmt: skip
        Study(tmp_path / name, other, data, batch_size=size, dtype=dtype).mine(part=part, **{"k": 2} | how)
        return tmp_path / name

    first = part("first", (1, 2))
    cases = {
        part("weights", (2, 2), network()): "holds results of other weights",
        part("data", (2, 2), data=torch.rand(12, 1, 8, 8)): "holds results of other data",
        part("dtype", (2, 2), dtype="bfloat16"): "holds results of other precision",
        part("k", (2, 2), k=3): "was mined with k=2 and .* with k=3",
        part("seed", (2, 2), seed=3): "was mined with seed=0 and .* with seed=3",
        part("size", (2, 2), size=3): "was mined with batch_size=2 and .* with batch_size=3",
        part("overlap", (2, 3)): "holds items 4 to 5, as another part does",
        part("gap", (3, 3)): "no part holds items 6 to 7",
    }
    for other, sentence in cases.items():
        with pytest.raises(InterpretError, match=sentence) as error:
            merge_studies([first, other], Study(tmp_path / "merged", module, images))
        assert re.fullmatch(r"[^.]+(\.\w[^.]*)*", str(error.value).replace(str(tmp_path), ""))
        assert not (tmp_path / "merged").exists()
    Study(tmp_path / "all", module, images).mine(k=2)
    for folder, sentence in ((tmp_path / "all", "holds no part"), (tmp_path / "none", "is no study")):
        with pytest.raises(InterpretError, match=sentence):
            merge_studies([folder], Study(tmp_path / "merged", module, images))
    for wrong in ((0, 2), (3, 2), (1, 7)):
        with pytest.raises(InterpretError, match=r"part must be|not enough for 7 parts"):
            Study(tmp_path / "merged", module, images, batch_size=2).mine(part=wrong)
    with pytest.raises(InterpretError, match="there are no parts"):
        merge_studies([], Study(tmp_path / "merged", module, images))


def test_parts_of_one_study_may_be_mined_one_after_the_other(tmp_path: Path) -> None:
    images, module = torch.rand(11, 1, 8, 8), network()
    study = Study(tmp_path / "study", module, images, batch_size=2)
    study.mine(k=3, part=(2, 2))
    assert study.mined_layers == []
    study.mine(k=3)  # the rest
    whole = Study(tmp_path / "whole", module, images, batch_size=2)
    whole.mine(k=3)
    assert contents(study.path) == contents(whole.path)


def test_a_malformed_part_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("2", "a/b", "-1/2", "²/3", "1/9999999999"):
        said = refused(capsys, monkeypatch, "mine", f"{folder}/net.py:build", folder / "data", "--study",
                       tmp_path / "study", "--part", text)  # fmt: skip
        assert said.startswith("interpret: --part must be a number and of how many, such as 2/8, not ")
    assert interpret.merge_studies is merge_studies


def test_a_damaged_part_is_refused(tmp_path: Path) -> None:
    images, module = torch.rand(12, 1, 8, 8), network()
    folders = [tmp_path / "1", tmp_path / "2"]
    for number, folder in enumerate(folders, 1):
        Study(folder, module, images, batch_size=2).mine(k=2, part=(number, 2))
    file = folders[1] / "mining.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(InterpretError, match=r"mining\.safetensors' is damaged"):
        merge_studies(folders, Study(tmp_path / "whole", module, images))
    assert not (tmp_path / "whole").exists()


def test_the_state_keeps_labels_only_where_reading_has_taught_them_and_in_few_bytes(tmp_path: Path) -> None:
    class Dataset(torch.utils.data.Dataset):
        """Its labels are known when an item is read."""

        def __len__(self) -> int:
            return 11

        def __getitem__(self, item: int) -> tuple[torch.Tensor, int]:
            return torch.full((1, 8, 8), float(item)), 300 * (item % 2)

    known = torch.utils.data.TensorDataset(torch.rand(11, 1, 8, 8), torch.arange(11))
    for name, data in (("read", Dataset()), ("known", known)):
        folders = [tmp_path / name / str(number) for number in (1, 2)]
        for number, folder in enumerate(folders, 1):
            Study(folder, network(), data, batch_size=2).mine(k=2, part=(number, 2))
        states = [load_file(folder / "mining.safetensors") for folder in folders]
        if name == "known":
            assert [len(state["read/labels"]) for state in states] == [0, 0]
            continue
        assert [state["read/labels"].dtype for state in states] == [torch.int16] * 2
        merged = merge_mined(*states)
        assert merged["read/labels"].tolist() == [300 * (item % 2) for item in range(11)]
        images = open_images(data, network())
        learn(images, merged)
        assert images.labels.tolist() == merged["read/labels"].tolist()
