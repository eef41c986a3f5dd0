"""Small networks in as many styles as people write them, none of which this project would write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import FrozenBatchNorm2d, SqueezeExcitation


@dataclass(frozen=True)
class Written:
    """A network, and what is known of it without this project."""

    build: Callable[[], nn.Module]
    hidden: str
    """A convolution inside it."""
    shape: tuple[int, int, int] = (3, 12, 12)
    reading: Callable[[Tensor], Tensor] | None = lambda outputs: outputs.softmax(1)
    """How its outputs become probabilities [B, K]; None where it is no classifier."""
    logits: Callable[[Any], Tensor] = lambda outputs: outputs
    """Which of what it returns are the scores."""
    left_out: tuple[str, ...] = ()
    """Convolutions and linear layers that do not run, or whose first dimension holds neither images nor their parts."""
    dtype: torch.dtype = torch.float32
    rectifies: bool = field(default=True)
    """Whether whatever rectifies in it is a ReLU, so that a reference that patches every ReLU gives its deconvnet."""


def make(style: str) -> nn.Module:
    """Build a network, the same one each time, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return STYLES[style].build().eval()


STYLES: dict[str, Written] = {}


def style(hidden: str = "conv2", **known: Any) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Enter a network's class, or a function that builds it, under its name."""

    def enter(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        STYLES[build.__name__] = Written(build, hidden, **known)
        return build

    return enter


class Body(nn.Module):
    """Two convolutions and a head, which most of the networks below are variations of."""

    def __init__(self, features: int = 6 * 5 * 5, classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3)
        self.conv2 = nn.Conv2d(5, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))))


# ---- how people flatten ----------------------------------------------------------------------------------------------


@style("2")
def flatten_module() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(150, 4),
    )  # fmt: skip


@style()
class view_minus_one(Body):  # noqa: N801 - these are names of styles
    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head(x.view(x.size(0), -1))


@style()
class view_with_numbers(Body):  # noqa: N801
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).view(-1, 6 * 5 * 5))


@style()
class reshape_head(Body):  # noqa: N801
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).reshape(len(x), -1))


@style()
class pooled_and_squeezed(Body):  # noqa: N801
    def __init__(self) -> None:
        super().__init__(6)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).squeeze(-1).squeeze(-1))


@style()
class squeezed_of_all(Body):  # noqa: N801
    def __init__(self) -> None:
        super().__init__(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.features(x), 1).squeeze())


@style()
class mean_over_the_map(Body):  # noqa: N801
    def __init__(self) -> None:
        super().__init__(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean([2, 3]))


@style()
class strongest_of_the_map(Body):  # noqa: N801
    def __init__(self) -> None:
        super().__init__(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).amax(dim=(-2, -1)))


@style("0")
def convolutional_head() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@style()
class read_from_memory(Body):  # noqa: N801
    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head(torch.as_strided(x, (len(x), 150), (150, 1)))


# ---- how people hold modules and state -------------------------------------------------------------------------------


@style("features.0")
class functional_everything(nn.Module):  # noqa: N801
    """Parameters of its own, and functions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleList([nn.Conv2d(3, 5, 3)])
        self.kernels = nn.Parameter(torch.randn(6, 5, 3, 3) / 5)
        self.weights, self.bias = nn.Parameter(torch.randn(4, 6) / 3), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.features[0](x))
        x = F.max_pool2d(F.conv2d(x, self.kernels, padding=1).relu_(), 2)
        return F.linear(torch.flatten(F.avg_pool2d(x, 5), 1), self.weights, self.bias)


@style("2")
def rectified_in_place() -> nn.Module:
    relu = nn.ReLU(inplace=True)  # one module, used twice
    return nn.Sequential(nn.Conv2d(3, 5, 3), relu, nn.Conv2d(5, 6, 3), relu, nn.Flatten(), nn.Linear(384, 4))


@style("again")
class shared_convolution(nn.Module):  # noqa: N801
    """One convolution that runs three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(3):
            x = self.again(x).clamp(min=0)
        return self.head(x.mean((2, 3)))


@style("right")
class tied_weights(nn.Module):  # noqa: N801
    """Two modules with one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3), nn.Linear(10, 4)
        self.right.weight = self.left.weight

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.left(x), self.right(x.flip(3))], 1).relu()
        return self.head(both.mean((2, 3)))


@style("last")
def closure() -> nn.Module:
    """A hook that writes into a dictionary of the original, from which the network reads on."""
    kept: dict[str, Tensor] = {}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.head = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 3, padding=1), nn.Linear(5, 4)
            self.first.register_forward_hook(lambda _m, _i, output: kept.update(skip=output))

        def forward(self, x: Tensor) -> Tensor:
            x = self.last(self.first(x).relu()) + kept["skip"]
            return self.head(x.relu().mean((2, 3)))

    return Net()


@style("last")
class kept_on_itself(nn.Module):  # noqa: N801
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.head = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 3), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.activations = [self.first(x).relu()]
        self.activations.append(self.last(self.activations[0]).relu())
        return self.head(self.activations[-1].mean((2, 3)))


@style("branches.deep.0")
class module_containers(nn.Module):  # noqa: N801
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(
            {"deep": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "wide": nn.ModuleList([nn.Conv2d(3, 4, 5)])}
        )
        self.plain = [nn.Conv2d(3, 2, 1)]  # in a plain list, where nobody finds it
        self.plain[0].requires_grad_(False)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.branches["deep"](x), F.relu(self.branches["wide"][0](x)), self.plain[0](x)]
        return self.head(torch.cat([part.mean((2, 3)) for part in parts], 1))


@style("2")
class buffers_replaced(nn.Sequential):  # noqa: N801
    """Counts its passes in a buffer that it replaces, and normalises its input with two others."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(384, 4))
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.25, 0.3]).reshape(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        self.passes = self.passes + 1
        return super().forward((x - self.mean) / self.std)


@style("conv2")
class graph_of_pixels(nn.Module):  # noqa: N801
    """Takes means over neighbours in a graph of pixels, whose sparse matrix is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(5, 4)
        places = torch.arange(100)
        graph = torch.zeros(100, 100)
        for step in (0, 1, 10, 37):
            graph[places, (places + step) % 100] = 0.25
        self.register_buffer("graph", graph.to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        maps = F.relu(self.conv1(x))
        places = maps.flatten(0, 1).flatten(1).t()
        maps = torch.sparse.mm(self.graph, places).t().reshape(maps.shape)
        return self.head(F.relu(self.conv2(maps)).mean((2, 3)))


# ---- how people wire them --------------------------------------------------------------------------------------------


@style("conv2")
class added_in_place(nn.Module):  # noqa: N801
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3)
        self.conv1, self.conv2 = nn.Conv2d(5, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.norm, self.relu, self.head = nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        out = self.norm(self.conv2(self.relu(self.conv1(x))))
        out += x
        return self.head(self.relu(out).mean((2, 3)))


@style("layers.1")
class densely_connected(nn.Module):  # noqa: N801
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3 + 4 * depth, 4, 3, padding=1) for depth in range(3)])
        self.head = nn.Linear(15, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat((x, F.relu(layer(x), inplace=True)), dim=1)
        return self.head(x.mean((2, 3)))


@style("net.2")
class checkpointed(nn.Module):  # noqa: N801
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU())
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.net, x, use_reentrant=False)
        return self.head(x.mean((2, 3)))


@style("exits.0.0", logits=lambda outputs: outputs[0])
class early_exits(nn.Module):  # noqa: N801
    """Returns a list of answers, one after each block."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = nn.ModuleList([nn.Sequential(nn.Conv2d(width, 5, 3), nn.ReLU()) for width in (3, 5)])
        self.heads = nn.ModuleList([nn.Linear(5, 4), nn.Linear(5, 4)])

    def forward(self, x: Tensor) -> list[Tensor]:
        answers = []
        for block, head in zip(self.exits, self.heads, strict=True):
            x = block(x)
            answers.append(head(x.mean((2, 3))))
        return answers


@style(logits=lambda outputs: outputs["logits"])
class answers_in_a_dictionary(Body):  # noqa: N801
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.features(x)
        return {"features": features, "logits": self.head(features.flatten(1))}


@style(left_out=("auxiliary",))
class auxiliary_head(Body):  # noqa: N801
    """A head that runs in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Any:
        if self.training:
            return self.head(self.features(x).flatten(1)), self.auxiliary(self.conv1(x).mean((2, 3)))
        return self.head(self.features(x).flatten(1))


@style()
class arguments_by_name(Body):  # noqa: N801
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(input=self.conv1(input=x), inplace=False)
        x = torch.flatten(input=F.relu(self.conv2(input=x)), start_dim=1)
        return self.head(input=x)


@style("1")
def unshuffled_first() -> nn.Module:
    return nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(12, 6, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )


@style("two", rectifies=False)
class gated(nn.Module):  # noqa: N801
    """Squeeze-and-excitation between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)
        self.gate, self.head = SqueezeExcitation(8, 2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.gate(self.one(x).relu())).relu().mean((2, 3)))


@style("depth", rectifies=False)
class channels_at_the_end(nn.Module):  # noqa: N801
    """A block as ConvNeXt has it: linear layers at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, 6, 2, 2), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.wide, self.narrow = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.narrow(F.gelu(self.wide(self.norm(self.depth(x).permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
        return self.head((x + y).mean((2, 3)))


@style("3", rectifies=False)
def normalised_by_groups() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.LeakyReLU(0.1, inplace=True), nn.Conv2d(6, 4, 3),
        nn.InstanceNorm2d(4, affine=True), nn.Hardswish(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


@style("2")
def separable_and_dilated() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3), nn.ReLU6(), nn.Conv2d(6, 6, 3, dilation=2, padding="same", groups=2), nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True), nn.Flatten(), nn.Linear(150, 4),
    )  # fmt: skip


@style("first", rectifies=False)
class own_autograd(nn.Module):  # noqa: N801
    """A rectifier that is spelt out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head((x * x.sigmoid()).mean((2, 3)))


@style("conv", rectifies=False)
class by_einsum(nn.Module):  # noqa: N801
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix = nn.Conv2d(3, 6, 3), nn.Parameter(torch.randn(6, 4) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,ck->bk", torch.tanh(self.conv(x)), self.mix) / 20


@style("encode", reading=None)
class decoder(nn.Module):  # noqa: N801
    """A network that answers with a map."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.pool = nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(2, return_indices=True)
        self.unpool, self.decode = nn.MaxUnpool2d(2), nn.ConvTranspose2d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x, where = self.pool(self.encode(x).relu())
        return self.decode(self.unpool(x, where))


@style("conv1", left_out=("rows",))
class parts_in_the_batch(nn.Module):  # noqa: N801
    """Each row of the map is an item of a linear layer's batch: the first rows of all images, then the second ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.rows, self.head = nn.Conv2d(3, 5, 3), nn.Linear(50, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu().movedim(2, 0)  # [10, B, 5, 10]
        rows = self.rows(x.flatten(0, 1).flatten(1)).relu()
        return self.head(rows.unflatten(0, (10, -1)).mean(0))


@style("conv1", rectifies=False)
class recurrent(nn.Module):  # noqa: N801
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.rnn, self.head = nn.Conv2d(3, 5, 3), nn.LSTM(50, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu().permute(0, 3, 1, 2).flatten(2)
        return self.head(self.rnn(x)[0][:, -1])


@style("conv1", rectifies=False, left_out=("each",))
class recurrent_time_first(nn.Module):  # noqa: N801
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.rnn, self.each = nn.Conv2d(3, 5, 3), nn.GRU(50, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu().permute(3, 0, 1, 2).flatten(2)  # [W, B, C·H]
        return self.head(self.each(self.rnn(x)[0])[-1])


# ---- how people answer -----------------------------------------------------------------------------------------------


@style(reading=lambda outputs: torch.cat([1 - outputs.sigmoid(), outputs.sigmoid()], 1))
class single_logit(Body):  # noqa: N801
    def __init__(self) -> None:
        super().__init__(classes=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


@style(reading=lambda outputs: outputs)
class a_sigmoid_for_each_label(Body):  # noqa: N801
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(self.features(x).flatten(1)))


@style(reading=lambda outputs: outputs)
class softmax_already(Body):  # noqa: N801
    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.head(self.features(x).flatten(1)), 1)


@style(reading=lambda outputs: outputs.exp())
class log_softmax_already(Body):  # noqa: N801
    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.head(self.features(x).flatten(1)), dim=1)


# ---- what libraries make of them -------------------------------------------------------------------------------------


@style()
class weight_normalised(Body):  # noqa: N801
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.conv1)
        nn.utils.parametrizations.spectral_norm(self.conv2)
        nn.utils.weight_norm(self.head)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


@style("2")
def frozen_batch_norm() -> nn.Module:
    norm = FrozenBatchNorm2d(5)
    norm.weight.copy_(torch.rand(5) + 0.5), norm.running_var.copy_(torch.rand(5) + 0.5), norm.bias.copy_(torch.rand(5))
    return nn.Sequential(nn.Conv2d(3, 5, 3), norm, nn.Conv2d(5, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@style()
def data_parallel() -> nn.Module:
    return nn.DataParallel(reshape_head())


@style()
def symbolically_traced() -> nn.Module:
    return torch.fx.symbolic_trace(view_with_numbers())


@style()
def lazily_built() -> nn.Module:
    network = reshape_head()
    network.head = nn.LazyLinear(4)
    network(torch.zeros(1, 3, 12, 12))
    return network


@style(dtype=torch.float64)
def in_double_precision() -> nn.Module:
    return view_minus_one().double()


@style("0", shape=(1, 12, 12))
def one_channel() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96, 4))


@style("conv1", shape=(6, 12, 10))
class six_channels_oblong(nn.Module):  # noqa: N801
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.head = nn.Conv2d(6, 5, (3, 5), (2, 1)), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.max(self.conv1(x), torch.zeros(())).mean((2, 3)))
