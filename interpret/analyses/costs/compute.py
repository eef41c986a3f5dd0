"""Count the operations of torchvision's classifiers, beside their published accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from interpret.analyses.costs.result import NetworkCosts
from interpret.loading.torchvision_timm import torchvision_classifiers, torchvision_source
from interpret.support.errors import InterpretError
from interpret.support.progress import progress
from interpret.tracing.macs import MacCounter


def compare_costs(names: Sequence[str] | None = None) -> NetworkCosts:
    """Return accuracy, operations and parameters of torchvision's classifiers; nothing is downloaded.

    >>> costs = compare_costs(["alexnet", "squeezenet1_1"])
    >>> costs.top1, costs.macs.round(3), costs.params
    (array([56.522, 58.178]), array([0.714, 0.349]), array([61100840,  1235496]))

    Torchvision publishes the accuracy of each network's default weights. This function counts operations and parameters
    itself, on networks on the meta device, and also returns the counts that torchvision publishes.

    Args:
        names: names of networks, as in `torchvision.models.list_models`; None: all classifiers.

    Returns:
        `interpret.analyses.costs.result.NetworkCosts`, in the order of `names`. It counts the multiply-accumulates of
        convolutions and matrix products, as torchvision's "GFLOPS" do. It leaves out the auxiliary classifiers of
        GoogLeNet and Inception v3, which run in training only.

    Raises:
        InterpretError: `names` is empty or holds an unknown name; the message suggests similar names.

    Source: A. Canziani, A. Paszke and E. Culurciello, "An analysis of deep neural network models for practical
    applications", 2016, figures 1 and 2; the accuracies and published counts are torchvision's.
    """
    names = torchvision_classifiers() if names is None else list(names)
    if not names:
        raise InterpretError("names is empty: name at least one network, or leave it out for all")
    rows = []
    with progress(len(names), "counting operations", "network") as bar:
        for name in names:
            rows.append(_costs_of(name))
            bar.update()
    top1, macs, published_macs, params, published_params, sides = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    return NetworkCosts(list(names), top1, macs, published_macs, params, published_params, sides)


def _costs_of(name: str) -> tuple[float, float, float, int, int, int]:
    source = torchvision_source(name)
    meta = models.get_model_weights(name).DEFAULT.meta
    assert source.preprocess is not None
    network = without_memory(source.fresh)
    image = torch.zeros(1, *source.preprocess.input_shape, device="meta")
    network.eval()
    # the counter sees the parts of composite operators, but not in inference mode
    with torch.no_grad(), MacCounter() as counter:
        network(image)
    params = sum(parameter.numel() for parameter in network.parameters())
    top1 = meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return top1, counter.total / 1e9, meta["_ops"], params, meta["num_params"], source.preprocess.size[0]


def without_memory(build: Callable[[], Any]) -> nn.Module:
    """Return the network that `build` makes, on the meta device: shapes without values.

    >>> without_memory(lambda: nn.Linear(10**6, 10**6)).weight.shape
    torch.Size([1000000, 1000000])

    Only `torch.empty`, which makes parameters, is redirected. Tensors from which a network computes its widths, as
    RegNet does, keep their values; under `torch.device("meta")` they would lose them.
    """
    with _EmptyOnMeta():
        network = build()
    return (network if isinstance(network, nn.Module) else network.module).to("meta")


class _EmptyOnMeta(TorchFunctionMode):
    """Let `torch.empty`, which makes parameters, allocate no memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
