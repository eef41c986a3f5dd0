"""Folders of `.npy` files, as signals and volumes are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import interpret
from helpers.commands import command
from interpret import InterpretError, mine, open_images
from interpret.study.reader import StudyReader

SIGNALS = np.random.default_rng(0).standard_normal((6, 2, 40)).astype(np.float32)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 4, 5), nn.ReLU(), nn.Conv1d(4, 3, 3, stride=2)).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, signal in enumerate(SIGNALS):
        own = tmp_path / ("high" if place % 2 else "low")
        own.mkdir(exist_ok=True)
        np.save(own / f"{place}.npy", signal)
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_a_folder_of_signals_is_mined_as_their_tensor_is(folder: Path) -> None:
    order = [1, 3, 5, 0, 2, 4]
    images = open_images(folder, network())
    assert images.classes == ("high", "low") and images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [images.source_name(place) for place in (0, 3)] == ["high/1.npy", "low/0.npy"]
    one, other = mine(network(), folder, k=3), mine(network(), torch.from_numpy(SIGNALS[order]), k=3)
    for name in ("0", "2"):
        assert np.array_equal(one[name].values, other[name].values)
        assert np.array_equal(one[name].images, other[name].images)
        assert np.array_equal(one[name].positions, other[name].positions)


def test_the_command_mines_a_folder_of_signals(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path_factory.mktemp("model")
    (place / "net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv1d(2, 4, 5), nn.ReLU())\n"
    )
    command(monkeypatch, "mine", f"{place}/net.py:build", folder, "--study", place / "study", "-k", 2)
    assert StudyReader(place / "study").mined("0").values.shape == (4, 2)


@pytest.mark.parametrize(("shape", "axes"), [((40,), 1), ((6, 8, 8), 3), ((12, 12), 2)])
def test_a_missing_channel_is_added(shape: tuple[int, ...], axes: int, tmp_path: Path) -> None:
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    np.save(tmp_path / "one.npy", values)
    convolution: type[nn.Module] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
    item, label = open_images(tmp_path, convolution(1, 2, 3))[0]  # type: ignore[call-arg]
    assert label == -1 and torch.equal(item, torch.from_numpy(values).float()[None])


def test_a_network_of_waveforms_without_channels_is_called_by_a_function(tmp_path: Path) -> None:
    class Waveforms(nn.Module):  # [B, T]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 3, 5)

        def forward(self, x: Tensor) -> Tensor:
            assert x.dim() == 2
            return self.conv(x[:, None]).mean(2)

    for place in range(3):
        np.save(tmp_path / f"{place}.npy", SIGNALS[place, 0])
    model = interpret.load(Waveforms().eval(), call=lambda network, signals: network(signals[:, 0]))
    mined = mine(model, tmp_path, k=1)
    (values,) = (one.values for one in mined.values())
    expected = model.module(torch.from_numpy(SIGNALS[:3, :1]))
    assert expected.shape == (3, 3) and values.shape == (3, 1)


def test_files_that_are_no_inputs_are_said_in_a_sentence(folder: Path) -> None:
    np.save(folder / "high" / "0.npy", np.zeros((3, 2, 40, 2)))
    with pytest.raises(InterpretError, match=r"'high/0.npy' holds float64 \[3, 2, 40, 2\], but the network takes"):
        open_images(folder, network())


def test_a_damaged_file_is_skipped_and_named(folder: Path) -> None:
    (folder / "high" / "1.npy").write_bytes(b"\x93NUMPY damaged")
    np.save(folder / "high" / "3.npy", np.array([object()]), allow_pickle=True)
    mined = mine(network(), folder, k=4)
    assert set(mined["0"].images.flatten().tolist()) == {2, 3, 4, 5}
    assert sorted(mined.skipped) == ["high/1.npy", "high/3.npy"]
