"""What everything stands on: the lazy package, errors, files, layers by name, and the model."""

from __future__ import annotations

import errno
import inspect
import os
import pickle
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.models import resnet18

import interpret
from interpret.backprop.rules import UncoveredOperation
from interpret.images.opening import LeftAside
from interpret.network.layers import first_outputs, select_layers, units_first
from interpret.network.model import Model, as_model, hash_weights
from interpret.network.preprocess import Preprocess
from interpret.support.errors import InterpretError, unknown, warn
from interpret.support.files import any_file, never, replacing, write_text
from interpret.support.interrupts import interrupts_delayed

# the package


def run(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_importing_it_does_not_import_torch() -> None:
    run(
        "import sys, interpret; dir(interpret); interpret.__version__; "
        "from interpret import InterpretError, Study; "
        "import interpret.support.errors, interpret.support.files, interpret.support.progress; "
        "assert not {'torch', 'torchvision', 'matplotlib', 'captum'} & set(sys.modules)"
    )


def test_its_help_does_not_import_torch() -> None:
    run(
        "import sys; sys.argv = ['interpret', '--help']\n"
        "from interpret.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert sorted(interpret.__all__) == list(interpret.__all__) and set(interpret.__all__) <= set(dir(interpret))
    for name in interpret.__all__:
        value = getattr(interpret, name)
        assert value.__name__ == name and value.__module__.startswith("interpret.")
        documentation = inspect.getdoc(value)
        assert documentation and documentation.splitlines()[0].endswith((".", ":")), name
    with pytest.raises(AttributeError, match="module 'interpret' has no attribute 'nothing'"):
        _ = interpret.nothing
    everything: dict[str, Any] = {}
    exec("from interpret import *", everything)
    assert set(interpret.__all__) <= set(everything)


def test_no_function_hides_a_module_of_its_name() -> None:
    folder = Path(interpret.__file__).parent
    modules = {file.stem for file in folder.glob("*.py")} | {file.name for file in folder.iterdir() if file.is_dir()}
    assert not modules & set(interpret.__all__)


# errors


def test_unknown_names_come_with_similar_ones() -> None:
    layers = [f"features.{index}" for index in range(20)]
    assert str(unknown("layer", "feature.3", layers)).startswith("unknown layer 'feature.3': did you mean 'features.3'")
    assert str(unknown("layer", "xyz", layers)).endswith("features.10, features.11, …")
    assert str(unknown("rule", "xyz", ("one", "two"))) == "unknown rule 'xyz': choose from one, two"
    assert str(unknown("layer", 3, [])) == "unknown layer '3': there is none to choose from"
    assert str(unknown("layer", "one", iter(["ones"]))) == "unknown layer 'one': did you mean 'ones'?"


def test_errors_are_value_errors_that_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(InterpretError("k must be at least 1")))
    assert isinstance(error, ValueError) and str(error) == "k must be at least 1"


def test_a_warning_names_the_line_that_called_the_package() -> None:
    """Whatever lies between: decorators of torch's, contexts, other functions of the package."""

    class Sine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.conv(images.sin())

    data = [{"image": torch.rand(3, 8, 8), "caption": "a"}]
    with pytest.warns(LeftAside) as left:
        interpret.mine(Sine(), data)
    with pytest.warns(UncoveredOperation) as uncovered:
        interpret.project(Sine(), torch.rand(2, 3, 8, 8), "conv", 1)
    with pytest.warns(UserWarning) as own:
        warn("one")
    assert {one.filename for one in [*left, *uncovered, *own]} == {__file__}


# files


def make_file(path: Path, text: str) -> None:
    path.write_text(text)


def make_folder(path: Path, text: str) -> None:
    path.mkdir()
    (path / "inside").write_text(text)


def content(path: Path) -> Any:
    if path.is_dir():
        return {entry.name: content(entry) for entry in path.iterdir()}
    return path.read_text() if path.exists() else None


KINDS: dict[str, Callable[[Path, str], None]] = {
    "nothing": lambda path, text: None,
    "file": make_file,
    "folder": make_folder,
}


@pytest.mark.parametrize(("old", "new"), [("nothing", "file"), ("nothing", "folder"), ("file", "file")])
def test_replacing_is_atomic(tmp_path: Path, old: str, new: str) -> None:
    target, alike = tmp_path / "deep" / "target", tmp_path / "alike"
    KINDS[new](alike, "new")
    if old != "nothing":
        target.parent.mkdir()
        KINDS[old](target, "old")
    with replacing(target, any_file) as temporary:
        before = content(target)
        KINDS[new](temporary, "new")
        assert content(target) == before
        assert temporary.stat().st_dev == target.parent.stat().st_dev
    assert content(target) == content(alike)
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(alike.stat().st_mode)
    assert [file.name for file in target.parent.iterdir()] == ["target"]


def test_only_own_files_are_replaced_and_never_a_folder(tmp_path: Path) -> None:
    make_file(tmp_path / "file", "old")
    make_folder(tmp_path / "folder", "old")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, ours, new in [
        ("file", never, "file"), ("file", never, "folder"), ("file", any_file, "folder"),
        ("folder", any_file, "file"), ("folder", any_file, "folder"), ("empty", any_file, "file"),
        ("pipe", any_file, "file"), ("file/below", never, "file"),
    ]:  # fmt: skip
        said = pytest.raises(InterpretError, match=name.split("/")[0])
        with said, replacing(tmp_path / name, ours) as made:
            KINDS[new](made, "new")
    # nor what came while the new was made
    with pytest.raises(InterpretError, match="late"), replacing(tmp_path / "late") as made:
        make_file(made, "new")
        make_file(tmp_path / "late", "old")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "folder", "late", "pipe"]
    assert content(tmp_path / "file") == content(tmp_path / "late") == "old"
    assert content(tmp_path / "folder") == {"inside": "old"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), SystemExit()])
@pytest.mark.parametrize("new", ["file", "folder"])
@pytest.mark.parametrize("old", ["nothing", "file"])
def test_after_an_error_the_old_file_is_there_and_no_temporary_one(
    tmp_path: Path, old: str, new: str, error: BaseException
) -> None:
    target = tmp_path / "target"
    KINDS[old](target, "old")
    before = content(tmp_path)
    with pytest.raises(type(error)), replacing(target, any_file) as temporary:
        KINDS[new](temporary, "ne")
        raise error
    assert content(tmp_path) == before


def test_a_block_that_writes_nothing_keeps_the_old_file(tmp_path: Path) -> None:
    for old in ("nothing", "file"):
        KINDS[old](tmp_path / old, "old")
        before = content(tmp_path)
        with pytest.raises(FileNotFoundError), replacing(tmp_path / old, any_file):
            pass
        assert content(tmp_path) == before


def test_the_target_of_a_link_is_replaced_if_it_is_an_own_file(tmp_path: Path) -> None:
    make_file(tmp_path / "file", "old")
    make_folder(tmp_path / "folder", "old")
    for name, to in (("to a file", "file"), ("to a folder", "folder"), ("to nothing", "gone")):
        (tmp_path / name).symlink_to(tmp_path / to)
    for name in ("to a file", "to a folder"):
        with pytest.raises(InterpretError), replacing(tmp_path / name) as temporary:
            make_file(temporary, "new")
    assert content(tmp_path / "file") == "old" and content(tmp_path / "folder") == {"inside": "old"}
    for name, to in (("to a file", "file"), ("to nothing", "gone")):
        with replacing(tmp_path / name, any_file) as temporary:
            make_file(temporary, "new")
        assert (tmp_path / name).is_symlink() and content(tmp_path / to) == "new"


def test_names_may_be_long_and_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x" * 255, "ü" * 120, ".hidden", "with space"):
        write_text(name, "text")
        assert (tmp_path / name).read_text() == "text"
    assert len(list(tmp_path.iterdir())) == 4


def test_text_is_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "π\n" + os.fsdecode(b"caf\xe9") + "\n")
    assert (tmp_path / "text").read_bytes() == "π\ncaf?\n".encode()


# layers


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.ConvTranspose2d(2, 2, 3))
        self.head = nn.Linear(2, 3)
        self.again = self.body[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(self.body(x)).mean((2, 3)))


def test_layers_are_chosen_by_name_and_glob() -> None:
    network = Nested()
    assert select_layers(network) == ["body.0", "body.2", "head"]
    for patterns, chosen in [
        ("head", ["head"]),
        (" head , body.0 ", ["body.0", "head"]),
        (["head", "body.*"], ["body.0", "body.2", "head"]),
        (["body.1", "body.0", "body.[0-1]"], ["body.0", "body.1"]),
        ("body", ["body"]),
        ("*", ["body.0", "body.2", "head"]),
        ("*.1", ["body.1"]),  # no convolution among them
        ((name for name in ["?ead"]), ["head"]),
    ]:
        assert select_layers(network, patterns) == chosen
    for patterns, message in [
        ("HEAD", r"unknown layer 'HEAD': "),
        ("head,bodi.0", r"unknown layer 'bodi.0': did you mean 'body.0'"),
        ("body.?.*", "unknown layer"),
        ("", "layers is empty"),
        (" , ", "layers is empty"),
        ([], "layers is empty"),
    ]:
        with pytest.raises(InterpretError, match=message):
            select_layers(network, patterns)
    with pytest.raises(InterpretError, match="no convolutional or linear layer"):
        select_layers(nn.Sequential(nn.ReLU()))


def test_globs_choose_among_some_layers_and_names_among_all() -> None:
    network, some = Nested(), {"body.0", "body.1", "other"}
    assert select_layers(network, among=some) == ["body.0"]
    assert select_layers(network, "*", among=some) == ["body.0"]
    assert select_layers(network, "head,*.1", among=some) == ["body.1", "head"]
    with pytest.raises(InterpretError, match=r"unknown layer 'hea\*': choose from body.0, body.1"):
        select_layers(network, "hea*", among=some)


def test_globs_choose_what_has_units() -> None:
    network = resnet18()
    assert select_layers(network, "layer3.*") == [
        "layer3.0.conv1",
        "layer3.0.conv2",
        "layer3.0.downsample.0",
        "layer3.1.conv1",
        "layer3.1.conv2",
    ]
    assert select_layers(network, "layer3.*,bn1") == ["bn1", *select_layers(network, "layer3.*")]
    assert select_layers(network, "layer?") == ["layer1", "layer2", "layer3", "layer4"]
    assert select_layers(network, "*.relu") == [
        f"layer{stage}.{block}.relu" for stage in range(1, 5) for block in (0, 1)
    ]


class Functional(nn.Module):
    """A convolution of one's own: none of torch's classes."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.ones(2, 1, 3, 3))
        self.scale = nn.Parameter(torch.ones(1, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernels) * self.scale


class Subclass(nn.Conv2d):
    pass


def test_user_defined_convolutions_have_units() -> None:
    normed = parametrizations.weight_norm(nn.Conv2d(2, 2, 3))
    network = nn.Sequential(Functional(), nn.BatchNorm2d(2), Subclass(2, 2, 3), normed, nn.Conv1d(2, 2, 3))
    assert select_layers(network) == select_layers(network, "*") == ["0", "2", "3"]
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert list(interpret.mine(network[:2], images)) == ["0"]


def test_wrappers_are_not_shown_twice() -> None:
    network = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()), nn.Identity(), nn.Dropout(), nn.Tanh())
    assert select_layers(network, "*") == ["0.0", "0.1", "3"]
    assert select_layers(network, "0") == ["0"] and select_layers(network, "1,*") == ["0.0", "0.1", "1", "3"]
    assert select_layers(nn.Sequential(nn.Identity()), "*") == ["0"]


def test_outputs_come_first_come_raw_and_come_once() -> None:
    network, x = Nested(), torch.randn(2, 1, 6, 6)
    received: list[tuple[str, Tensor]] = []

    def receive(name: str, output: Tensor) -> None:
        received.append((name, output.clone()))

    with torch.no_grad(), first_outputs(network, ["head", "body.1", "body.0"], receive):
        result = network(x)
        raw = nn.functional.conv2d(x, network.body[0].weight, network.body[0].bias)
    assert [name for name, _ in received] == ["body.0", "body.1", "head"]  # body.1 ran twice
    found = dict(received)
    assert torch.equal(found["body.0"], raw) and raw.min() < 0
    assert torch.equal(found["body.1"], raw.relu()) and torch.equal(found["head"], result)
    assert not any(layer._forward_hooks for layer in network.modules())


def test_the_forward_pass_ends_after_the_last_layer() -> None:
    network, ran = Nested(), []
    network.head.register_forward_hook(lambda *_: ran.append("head"))
    with first_outputs(network, ["body.0", "body.1"], lambda name, _: ran.append(name), stop=True):
        network(torch.zeros(1, 1, 6, 6))
        ran.append("not reached")
    assert ran == ["body.0", "body.1"]
    assert not network.body[0]._forward_hooks


def test_errors_leave_no_hooks() -> None:
    network = Nested()
    with pytest.raises(RuntimeError), first_outputs(network, ["body.0"], lambda *_: None):
        network(torch.zeros(1, 7, 6, 6))
    assert not network.body[0]._forward_hooks
    pair = nn.Sequential(nn.MaxPool2d(2, return_indices=True))
    refused = pytest.raises(
        InterpretError, match="layer '0' returns several tensors, or none, and not one: choose a layer inside it"
    )
    with refused, first_outputs(pair, ["0"], lambda *_: None):
        pair(torch.zeros(1, 1, 4, 4))
    assert not pair[0]._forward_hooks


def test_units_come_first() -> None:
    grid = torch.rand(2, 7, 6, 5)
    assert torch.equal(units_first(nn.Linear(3, 5), grid), grid.permute(0, 3, 1, 2))
    assert units_first(nn.Conv2d(3, 7, 1), grid) is grid
    row = torch.rand(2, 5)
    assert units_first(nn.Linear(3, 5), row) is row


# the model


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["0.weight", "0.bias", "1.running_mean", "1.num_batches_tracked", "2"]), st.integers(0, 3))
def test_the_hash_sees_every_parameter_and_buffer(name: str, index: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = hash_weights(network)
    assert before == hash_weights(network) and len(before) == 64
    if name == "2":
        network.append(nn.Linear(1, 1))
    else:
        tensor = network.state_dict()[name].reshape(-1)
        tensor[index % len(tensor)] += 1
    assert hash_weights(network) != before


def test_the_hash_sees_bytes_types_and_shapes_and_not_how_they_lie_in_memory() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3)
    before = hash_weights(network)
    assert hash_weights(network.to(memory_format=torch.channels_last)) == before
    assert hash_weights(network.requires_grad_(False).train(False)) == before
    assert hash_weights(network.double()) != before
    flat, square = nn.Module(), nn.Module()
    flat.weight, square.weight = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2, 2))
    assert hash_weights(flat) != hash_weights(square)
    bare = nn.Module()
    for index, dtype in enumerate((torch.bool, torch.bfloat16, torch.int64, torch.complex64)):
        bare.register_buffer(str(index), torch.zeros((), dtype=dtype))
    bare.register_buffer("empty", torch.zeros(0))
    assert len(hash_weights(bare)) == 64


def test_a_model_knows_its_weights_as_they_are_now() -> None:
    model = Model(nn.Linear(2, 2), "line")
    before = model.weights_hash
    model.module.weight.data += 1
    assert model.weights_hash != before


def test_a_model_says_what_it_takes() -> None:
    model = Model(nn.Conv2d(1, 2, 3), "edges", Preprocess((8, 6), channels="L"))
    assert model.input_shape == (1, 8, 6) and model(torch.zeros(1, 1, 8, 6)).shape == (1, 2, 6, 4)
    with pytest.raises(InterpretError, match="model 'bare' does not say what its input looks like"):
        _ = Model(nn.Conv2d(1, 2, 3), "bare").input_shape


def test_a_module_is_a_model_of_its_class() -> None:
    module = nn.Conv2d(1, 2, 3)
    model = as_model(module)
    assert model.module is module and model.name == "Conv2d" and model.classes is None
    assert as_model(model) is model
    with pytest.raises(InterpretError, match=r"model must be a Model or an nn\.Module, not str: use interpret\.load"):
        as_model("lenet")  # type: ignore[arg-type]


@pytest.mark.parametrize("second_too", [False, True])
def test_a_second_interrupt_is_delayed_on_request_alone(second_too: bool) -> None:
    before, done = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), interrupts_delayed(second_too):
        for count in (1, 2):
            signal.raise_signal(signal.SIGINT)
            done.append(count)
    assert done == ([1, 2] if second_too else [1])
    assert signal.getsignal(signal.SIGINT) is before
