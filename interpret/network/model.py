"""A network with its preprocessing and the names of its classes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from interpret.network.preprocess import Preprocess
from interpret.network.wrappers import plain_network, refuse_without_numbers
from interpret.support.errors import InterpretError
from interpret.support.wording import count


@dataclass(eq=False, repr=False)
class Model:
    """A network with its preprocessing and its classes, returned by `interpret.load`.

    >>> model = Model(nn.Conv2d(1, 2, 3), name="one layer")
    >>> model(torch.zeros(1, 1, 5, 5)).shape
    torch.Size([1, 2, 3, 3])
    >>> len(model.weights_hash)
    64
    >>> model
    <Model: one layer, 20 parameters>
    """

    module: nn.Module
    """The network itself, without wrappers such as `DataParallel` or `torch.compile`."""
    name: str
    preprocess: Preprocess | None = None
    """How to turn a picture into the module's input, and back; None if unknown."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, in the order of the outputs; for a network with one output, the two classes."""
    outputs: str | None = None
    """How outputs become probabilities: "softmax", "sigmoid" (one score per label, or a single score for two classes),
    "probabilities" (unchanged) or "log-probabilities"; None: found from the operation that makes them
    and from their values."""
    spec: str | None = None
    """The spec with which `interpret.load` loads this model again; None for a module made in memory."""
    weights: str | None = None
    """The `weights` argument with which `interpret.load` loads it again; None for the network's own weights."""
    origin: str = ""
    """Where the weights come from, in one sentence."""
    card: str | None = None
    """Model card in Markdown: what it is, how it was trained, how accurate it is."""
    varying: bool = False
    """Whether analyses accept outputs that vary randomly or with the other images of a batch."""

    def __post_init__(self) -> None:
        self.module = plain_network(self.module)
        odd = next((name for name in self.classes or () if not isinstance(name, str)), None)
        if odd is not None:
            raise InterpretError(f"classes must be texts, not {odd!r}")

    def __call__(self, images: Tensor) -> Tensor:
        return self.module(images)

    def __repr__(self) -> str:
        parts = [
            self.name,
            count(sum(one.numel() for one in self.module.parameters() if not is_lazy(one)), "parameter"),
        ]
        if self.preprocess is not None:
            parts.append(f"input {' × '.join(map(str, self.input_shape))}")
        if self.classes is not None:
            parts.append(f"{len(self.classes):,} class" + "es" * (len(self.classes) != 1))
        if self.origin:
            parts.append(self.origin)
        return f"<Model: {', '.join(parts)}>"

    @property
    def known_shape(self) -> tuple[int, int, int] | None:
        """The shape (C, H, W) of one input, as the preprocessing or else the network itself says; None if unknown."""
        if self.preprocess is not None:
            return self.preprocess.input_shape
        return getattr(self.module, "declared_shape", None)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one input."""
        if self.known_shape is None:
            raise InterpretError(
                f"model {self.name!r} does not say what its input looks like: {self.preprocess_remedy}"
            )
        return self.known_shape

    @property
    def preprocess_remedy(self) -> str:
        """How to give the model a preprocessing, for messages.

        >>> Model(nn.Conv2d(1, 2, 3), name="mine").preprocess_remedy
        'load it with preprocess=Preprocess((height, width), mean=…, std=…)'
        """
        given = "Preprocess((height, width), mean=…, std=…)"
        path, colon, function = (self.spec or "").rpartition(":")
        if colon and path.endswith(".py"):
            made = f"{function}() in {Path(path).name}"
            return f"let {made} return interpret.load(network, preprocess=interpret.{given})"
        if self.spec and Path(self.spec).is_file():
            loaded = f"interpret.load({Path(self.spec).name!r}, preprocess=interpret.{given})"
            return f"write a function build() that returns {loaded}, and give FILE.py:build"
        if self.spec and (Path(self.spec) / "model.py").exists():
            return "give its recipe.toml a table [input] with size = [height, width], mean and std"
        return f"load it with preprocess={given}"

    @property
    def colours(self) -> str:
        """The input's channels: "RGB", "BGR" or "L", or bands that are shown, such as "3,2,1"; "RGB" if unknown."""
        return self.preprocess.colours if self.preprocess is not None else "RGB"

    @property
    def weights_hash(self) -> str:
        """SHA-256 over names, types, shapes and bytes of all parameters and buffers as they are now, in hexadecimal."""
        return hash_weights(self.module)


def hash_weights(module: nn.Module) -> str:
    """Return the SHA-256 of a module's parameters and buffers, whatever device they are on.

    >>> hash_weights(nn.ReLU()) == hashlib.sha256().hexdigest()
    True
    """
    refuse_without_numbers(module)
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        for part in _dense_parts(tensor.detach().cpu()):
            digest.update(part.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _dense_parts(tensor: Tensor) -> list[Tensor]:
    """Return a tensor itself, or the indices and values of a sparse one."""
    if tensor.layout is torch.strided:
        return [tensor]
    sparse = tensor.to_sparse_coo().coalesce()
    return [sparse.indices(), sparse.values()]


def as_model(model: Model | nn.Module) -> Model:
    """Return `model` itself, or a `Model` of a bare module, named after its class.

    >>> as_model(nn.Identity()).name
    'Identity'
    """
    if isinstance(model, Model):
        return model
    plain = plain_network(model)
    return Model(plain, name=getattr(plain, "network_name", type(plain).__name__))
