"""A network is run as the function that it is, however its code is written; or refused in a sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import interpret
from helpers.tensors import seeded
from interpret import InterpretError
from interpret.execution.parallel import copies_of
from interpret.network.dry_run import DryRun, answers_of, dry_run_of, dry_runs_held
from interpret.network.model import as_model, hash_weights


def pictures(count: int, channels: int = 3, side: int = 8) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def strongest(module: nn.Module, layer: nn.Module, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k strongest images of each unit and their values by brute force: one image at a time, one thread."""
    found: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _m, _i, output: found.append(output.detach().clone()))
    with torch.no_grad():
        for image in images:
            module(image[None])
    handle.remove()
    outputs = torch.cat([output if output.shape[0] == 1 else output[None] for output in found])
    best = outputs.flatten(2).amax(2) if outputs.dim() > 2 else outputs
    values, items = best.sort(stable=True, dim=0, descending=True)
    return items[:k].T, values[:k].T


class ByView(nn.Module):
    """Flattens as PyTorch's own tutorial does, which asks for a contiguous tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.f = nn.Conv2d(3, 4, 3), nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x).relu()
        return self.f(x.view(x.size(0), -1))


class ByMemory(nn.Module):
    """Reads memory in its order, which raises nothing in another layout."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.f = nn.Conv2d(3, 4, 3), nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x).relu()
        return self.f(torch.as_strided(x, (x.size(0), 144), (144, 1)))


LAYOUTS = [ByView, ByMemory]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_network_that_reads_memory_in_its_order_gives_its_own_values(kind: Callable[[], nn.Module]) -> None:
    network, images = seeded(kind), pictures(20)
    mined = interpret.mine(network, images, k=3)
    for name in ("c", "f"):
        items, values = strongest(network, network.get_submodule(name), images, 3)
        np.testing.assert_array_equal(mined[name].images, items.numpy())
        np.testing.assert_allclose(mined[name].values, values.numpy(), rtol=1e-5)
    with torch.no_grad():
        scores = network(images).double().softmax(1)
    predicted = interpret.predict(network, images, k=5)
    np.testing.assert_allclose(predicted.probabilities, scores.sort(dim=1, descending=True).values, rtol=1e-5)
    curves = interpret.probe(network, images[:3], "illumination", values=[1.0, 1.2], labels=[0, 1, 2])
    np.testing.assert_allclose(curves.probabilities[:, 0], scores[torch.arange(3), torch.arange(3)], rtol=1e-5)
    x = images[:2].clone().requires_grad_()
    outputs = network(x)
    (gradient,) = torch.autograd.grad((outputs[:, 1] * outputs[:, 1].detach()).sum(), x)
    projected = interpret.project(network, images[:2], "f", 1, rule="gradient")
    torch.testing.assert_close(projected.full((8, 8)), gradient)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_layout_that_answers_otherwise_is_seen(kind: Callable[[], nn.Module]) -> None:
    network = seeded(kind)
    assert not DryRun(network, pictures(2)).answers_the_same(network, torch.channels_last)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    assert DryRun(plain, pictures(2)).answers_the_same(plain, torch.channels_last)


def by_closure() -> nn.Module:
    """A hook that writes into a dictionary of the original, from which the network reads on."""
    kept: dict[str, Tensor] = {}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.last = nn.Conv2d(4, 6, 1)
            self.first.register_forward_hook(lambda _m, _i, output: kept.update(skip=output))

        def forward(self, x: Tensor) -> Tensor:
            x = self.second(self.first(x).relu()).relu()
            return self.last(x + kept["skip"])

    return Net()


def by_own_dictionary() -> nn.Module:
    """A hook of the original that writes into the original's own dictionary, where a copy reads its own."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept: dict[str, Tensor] = {}
            self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 1)
            kept = self.kept
            self.first.register_forward_hook(lambda _m, _i, output: kept.update(skip=output))

        def forward(self, x: Tensor) -> Tensor:
            self.first(x)
            return self.last(self.kept["skip"])

    return Net()


def uncopyable() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 1)

        def __deepcopy__(self, _memo: object) -> nn.Module:
            raise TypeError("not to be copied")

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).relu())

    return Net()


def by_attribute() -> nn.Module:
    """Keeps what it computes on itself, as many networks do: copies keep each their own."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.features = self.first(x).relu()
            return self.last(self.features)

    return Net()


@pytest.mark.parametrize(("build", "alike"), [(by_closure, False), (by_own_dictionary, False), (by_attribute, True)])
def test_copies_are_told_apart_from_the_network(build: Callable[[], nn.Module], alike: bool) -> None:
    network = seeded(build)
    run = DryRun(network, pictures(2))
    assert run.copies_answer_the_same(copies_of(network, 2)) is alike


def test_a_dry_run_that_is_held_serves_the_same_images_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1))
    model, varying = as_model(network), interpret.load(network, varying=True)
    images, others = pictures(5), pictures(5) + 1
    with dry_runs_held(network, runs := []):
        first = dry_run_of(model, images, ["0"])
        whole = dry_run_of(model, images)
        assert first is not whole and whole.rank("1") == 4 and first.rank("1") == 0
        assert dry_run_of(model, images, ["0"]) is first
        assert dry_run_of(model, images[:2], ["1"]) is whole, "which saw all layers"
        new = [dry_run_of(model, others), dry_run_of(varying, images), dry_run_of(model, images[:1])]
        assert len({id(one) for one in (first, whole, *new)}) == 5 == len(runs)
        assert dry_run_of(model, others) is new[0]
        with dry_runs_held(network, []):
            assert dry_run_of(model, images) is not whole
        assert dry_run_of(model, images) is whole
    assert dry_run_of(model, images) is not whole


@pytest.mark.parametrize("build", [by_closure, by_own_dictionary, uncopyable, by_attribute])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_do_not_mix_up_batches(build: Callable[[], nn.Module], threads: int) -> None:
    network, images = seeded(build), pictures(60)
    items, values = strongest(network, network.last, images, 3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        mined = interpret.mine(network, images, layers="last", k=3, batch_size=4)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(mined["last"].images, items.numpy())
    np.testing.assert_allclose(mined["last"].values, values.numpy(), rtol=1e-5)


def test_a_network_that_cannot_be_copied_is_checked_all_the_same() -> None:
    network, images = seeded(uncopyable), pictures(2)
    head = nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    before = state_of(head)
    check = interpret.sanity_check(head, images, ["gradient"])
    assert check.steps == ["", "0.last", "0.first"]
    assert (check.rank["gradient"][:, 0] == 1).all() and (check.rank["gradient"][:, 1:] < 0.99).all()
    assert state_of(head) == before
    states = {epoch: head.state_dict() for epoch in (1, 2)}
    with pytest.raises(InterpretError, match=r"cannot be copied \(TypeError: not to be copied\)"):
        interpret.evolve(states, images, model=head)


class Frames(nn.Module):
    """Reads an image as four strips, which a linear layer sees one by one: the first strips of all images first."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.f, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(64, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x).relu()
        strips = x.unflatten(2, (4, 2)).movedim(2, 0).flatten(0, 1)  # [4·B, 4, 2, 8]
        return self.head(self.f(strips.flatten(1)).unflatten(0, (4, -1)).mean(0))


class TimeFirst(nn.Module):
    """A recurrent head whose outputs have time first, the images second."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.rnn, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.LSTM(32, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x).relu().permute(3, 0, 1, 2).flatten(2)  # [W, B, C·H]
        return self.head(self.rnn(x)[0])


@pytest.mark.parametrize(("kind", "layer", "left"), [(Frames, "f", ["c", "head"]), (TimeFirst, "head", ["c"])])
def test_layers_whose_first_dimension_is_not_the_image_are_left_out_or_refused_by_name(
    kind: Callable[[], nn.Module], layer: str, left: list[str]
) -> None:
    network, images = seeded(kind), pictures(5)
    mined = interpret.mine(network, images, k=2)
    assert list(mined) == left
    for name in left:
        items, _ = strongest(network, network.get_submodule(name), images, 2)
        np.testing.assert_array_equal(mined[name].images, items.numpy())
    assert [name for name, one in interpret.trace(network, (3, 8, 8)).items() if not one.batched and one.leaf] == (
        [layer]
    )
    refusals: list[Callable[[], Any]] = [
        lambda: interpret.mine(network, images, layers=layer),
        lambda: interpret.project(network, images, layer, 0),
        lambda: interpret.project(network, images[:1], layer, 0),
        lambda: interpret.probe(network, images, "illumination", layers=layer),
        lambda: interpret.feature_maps(network, images[0], layer),
        lambda: interpret.correspond(network, images, {"eye": [0, 0, 2, 2]}, layers=layer),
    ]
    for refused in refusals:
        with pytest.raises(InterpretError, match=f"layer '{layer}' does not return one row for each image"):
            refused()


def test_a_squeeze_that_takes_the_only_image_away_is_undone() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.pool, self.f = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.f(self.pool(self.c(x).relu()).squeeze())

    network, images = seeded(Squeezed), pictures(5)
    mined = interpret.mine(network, images, k=2, batch_size=2)  # whose last batch is one image
    items, values = strongest(network, network.f, images, 2)
    np.testing.assert_array_equal(mined["f"].images, items.numpy())
    np.testing.assert_allclose(mined["f"].values, values.numpy(), rtol=1e-5)
    assert interpret.trace(network, (3, 8, 8))["f"].output_shape == (5,)
    alone, together = (interpret.project(network, images[:count], "f", 1).pixels[0] for count in (1, 2))
    torch.testing.assert_close(alone, together)


class LeftOn(nn.Module):
    """Dropout as it is often written, which evaluation mode does not turn off."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.drop, self.f = nn.Conv2d(3, 4, 3), nn.Identity(), nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(F.dropout(self.c(x).relu().flatten(1), 0.5))


def of_the_batch() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    )


ANALYSES: dict[str, Callable[[nn.Module | interpret.Model, Tensor], Any]] = {
    "mine": lambda network, images: interpret.mine(network, images),
    "project": lambda network, images: interpret.project(network, images, _last(network), 0),
    "predict": lambda network, images: interpret.predict(network, images, k=2),
    "probe": lambda network, images: interpret.probe(network, images, "illumination", values=[1, 1.2]),
    "occlude": lambda network, images: interpret.occlude(network, images, size=4, stride=4),
    "attribute": lambda network, images: interpret.attribute(network, images, "gradient"),
    "compare_methods": lambda network, images: interpret.compare_methods(network, images, ["gradient"]),
    "sanity_check": lambda network, images: interpret.sanity_check(network, images, ["gradient"], steps=1),
    "correspond": lambda network, images: interpret.correspond(network, images, {"eye": [0, 0, 2, 2]}),
    "find_neighbours": lambda network, images: interpret.find_neighbours(
        network, images, images, k=1, layer=_last(network)
    ),
    "feature_maps": lambda network, images: interpret.feature_maps(network, images[0]),
}


def _last(network: nn.Module | interpret.Model) -> str:
    return [name for name, part in as_model(network).module.named_modules() if isinstance(part, nn.Linear)][-1]


@pytest.mark.parametrize("analysis", ANALYSES)
def test_what_depends_on_chance_is_refused_unless_asked_for(analysis: str) -> None:
    network = seeded(LeftOn)
    with pytest.raises(InterpretError, match="layer 'f' gives another output when the same image runs again"):
        ANALYSES[analysis](network, pictures(3))
    ANALYSES[analysis](interpret.load(network, varying=True), pictures(3))


@pytest.mark.parametrize("analysis", ANALYSES)
def test_what_depends_on_the_batch_is_refused_unless_asked_for(analysis: str) -> None:
    network = seeded(of_the_batch)
    with pytest.raises(InterpretError, match="layer '1' gives an image another output when a second"):
        ANALYSES[analysis](network, pictures(3))
    ANALYSES[analysis](interpret.load(network, varying=True), pictures(3))


class StaysTraining(nn.BatchNorm2d):
    """A batch norm that stays in training mode, and so updates its buffers with each pass."""

    def train(self, mode: bool = True) -> nn.BatchNorm2d:
        return super().train(True)


def state_of(network: nn.Module) -> list[Any]:
    """Return all that an analysis must leave as it was."""
    generator = np.random.get_state()  # noqa: NPY002 - the one that users' code draws from
    return [
        hash_weights(network),
        [id(tensor) for tensor in (*network.parameters(), *network.buffers())],
        [tensor.stride() for tensor in (*network.parameters(), *network.buffers())],
        [part.training for part in network.modules()],
        [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in network.modules()],
        [parameter.requires_grad for parameter in network.parameters()],
        [parameter.grad is None for parameter in network.parameters()],
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        (generator[1].tolist(), generator[2]),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
    ]


@pytest.mark.parametrize("analysis", [*ANALYSES, "trace", "summarise"])
@pytest.mark.parametrize("fails", [False, True])
def test_every_analysis_leaves_network_and_process_as_they_were(analysis: str, fails: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.norm, self.f = nn.Conv2d(3, 4, 3), StaysTraining(4), nn.Linear(144, 5)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.seen + 1  # another buffer in the place of the old one
            x = F.dropout(self.norm(self.c(x)).relu().flatten(1), 0.1) * (1 + random.random() + np.random.rand())  # noqa: NPY002
            if fails and float(self.seen) > 1:
                raise KeyError("whatever")
            return self.f(x)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Net()
    network.c.eval()
    network.f.bias.requires_grad_(False)
    run = ANALYSES | {
        "trace": lambda network, images: interpret.trace(network, (3, 8, 8)),
        "summarise": lambda network, images: interpret.summarise(network, (3, 8, 8)),
    }
    before = state_of(network)
    try:
        run[analysis](interpret.Model(network, "net", varying=True), pictures(3))
    except InterpretError as error:
        assert fails and "KeyError" in str(error)
    assert state_of(network) == before


def test_answers_are_told_apart_by_their_numbers_and_not_by_rounding() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    run = DryRun(network, pictures(2))
    one, other = answers_of(network, pictures(2)), answers_of(network, pictures(2) * (1 + 1e-6))
    assert run._first_difference(one, other) is None
    assert run._first_difference(one, answers_of(network, pictures(2) * 1.01)) == "0"


class Amplifying(nn.Module):
    """Turns a difference in the last bits into another output; its convolution rounds otherwise in larger batches."""

    def __init__(self, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.mix, self.end = nn.Conv2d(3, 4, 3), mix, nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x * (1 + 2.0**-22 * (len(x) - 1)))
        return self.end(self.mix((x * 1e7).sin()))  # type: ignore[no-any-return]


def test_rounding_that_a_network_amplifies_is_named_and_not_taken_for_batch_statistics() -> None:
    with pytest.warns(UserWarning, match="layer 'end' amplifies rounding"):
        interpret.mine(seeded(lambda: Amplifying(lambda x: x)), pictures(4), batch_size=2)


@pytest.mark.parametrize("mix", [lambda x: x - x.mean(0), lambda x: x + x.flip(0)])
def test_a_network_that_amplifies_rounding_and_mixes_images_is_refused(mix: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(InterpretError, match="when a second image is in the batch"):
        interpret.mine(seeded(lambda: Amplifying(mix)), pictures(4))


def test_a_network_that_divides_by_the_number_of_images_is_refused() -> None:
    class Divides(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / len(x)

    with pytest.raises(InterpretError, match="layer '0' gives an image another output when a second image"):
        interpret.mine(nn.Sequential(seeded(lambda: Divides(3, 4, 3))), pictures(4))
