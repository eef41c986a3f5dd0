"""Networks that checkpoint their forward pass give what they give without."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils import checkpoint as torch_checkpoint
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from interpret import attribute, mine, occlude, probe, project, sanity_check
from interpret.backprop.rules import RULES, BackwardRule
from interpret.network.checkpointing import plain_checkpoints

ORIGINALS = torch_checkpoint.CheckpointFunction, torch_checkpoint._checkpoint_hook


class Checkpointed(nn.Module):
    """Blocks of which each is run again in the backward pass, if asked."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
            nn.Sequential(nn.Conv2d(6, 8, 3, stride=2), nn.SiLU(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(8, 5, 2), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.how = how
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "sequential":
            return checkpoint_sequential(self.blocks, 2, x, use_reentrant=False)
        for block in self.blocks:
            if self.how == "plain":
                x = block(x)
            elif self.how == "inside a checkpoint":
                x = checkpoint(lambda x, block=block: checkpoint(block, x, use_reentrant=False), x, use_reentrant=True)
            else:
                x = checkpoint(block, x, use_reentrant=self.how == "reentrant")
        return x


HOW = ["reentrant", "not reentrant", "sequential", "inside a checkpoint"]
EVERY_WAY = pytest.mark.parametrize("how", HOW)


def pictures(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 17, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def densenets() -> tuple[nn.Module, nn.Module]:
    options: dict[str, Any] = {"growth_rate": 4, "block_config": (2, 2), "num_init_features": 8, "num_classes": 5}
    torch.manual_seed(0)
    plain = torchvision.models.DenseNet(**options).double().eval()
    efficient = torchvision.models.DenseNet(**options, memory_efficient=True).double().eval()
    efficient.load_state_dict(plain.state_dict())
    return efficient, plain


def signal(module: nn.Module, images: Tensor, rule: Any) -> Tensor:
    images = images.clone().requires_grad_()
    with BackwardRule(module, rule, strict=True):
        output = module(images)
    return torch.autograd.grad(output[:, 2].sum(), images)[0]


@EVERY_WAY
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_passes_through(how: str, rule: str) -> None:
    module, plain = Checkpointed(how), Checkpointed("plain")
    assert torch.equal(signal(module, pictures(), rule), signal(plain, pictures(), rule))
    found, expected = (project(one, pictures(), "blocks.1.0", 3, rule=rule) for one in (module, plain))
    assert torch.equal(found.pixels, expected.pixels) and bool(found.pixels.any())


@pytest.mark.parametrize("rule", RULES)
def test_a_memory_efficient_densenet_is_a_densenet(rule: str) -> None:
    efficient, plain = densenets()
    images = torch.rand(2, 3, 40, 44, dtype=torch.float64)
    assert torch.equal(signal(efficient, images, rule), signal(plain, images, rule))
    layer = "features.denseblock2.denselayer1.conv1"
    found, expected = (project(one, images, layer, 3, rule=rule).pixels for one in (efficient, plain))
    assert torch.equal(found, expected) and bool(found.any())


@EVERY_WAY
@pytest.mark.parametrize(
    "method", ["gradient", "guided", "deconvnet", "integrated_gradients", "smoothgrad", "gradcam", "occlusion"]
)
def test_attributions_are_equal(how: str, method: Any) -> None:
    module, plain = Checkpointed(how), Checkpointed("plain")
    found, expected = (attribute(one, pictures(), method, 1, points=3, samples=2).maps for one in (module, plain))
    assert torch.equal(found, expected)


@EVERY_WAY
def test_the_other_analyses_are_equal(how: str) -> None:
    module, plain = Checkpointed(how), Checkpointed("plain")
    images = pictures(4)
    one, other = (mine(each, images, "blocks.2.0", k=2)["blocks.2.0"].values for each in (module, plain))
    assert (one == other).all()
    one, other = (occlude(each, images[:1], size=6, stride=5).probabilities for each in (module, plain))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    one, other = (probe(each, images, "rotation", [0, 30]).distances["blocks.2.0"] for each in (module, plain))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    one, other = (sanity_check(each, images[:1], ["gradient"], 1, steps=1).rank["gradient"] for each in (module, plain))
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_outside_of_the_block_and_on_other_threads_checkpoints_are_what_they_were() -> None:
    runs: list[int] = []

    def counted(x: Tensor) -> Tensor:
        runs.append(1)
        return x.exp()

    def train(reentrant: bool) -> int:
        runs.clear()
        x = torch.ones(1, requires_grad=True)
        checkpoint(counted, x, use_reentrant=reentrant).sum().backward()
        return len(runs)

    found: dict[str, int] = {}
    with plain_checkpoints():
        assert [train(True), train(False)] == [1, 1], "nothing runs again"
        for reentrant in (True, False):
            thread = threading.Thread(
                target=lambda reentrant=reentrant: found.update({str(reentrant): train(reentrant)})
            )
            thread.start()
            thread.join()
    assert found == {"True": 2, "False": 2}
    assert [train(True), train(False)] == [2, 2]
    assert (torch_checkpoint.CheckpointFunction, torch_checkpoint._checkpoint_hook) == ORIGINALS
    with pytest.raises(ZeroDivisionError), plain_checkpoints(), plain_checkpoints():
        _ = 1 / 0
    assert (torch_checkpoint.CheckpointFunction, torch_checkpoint._checkpoint_hook) == ORIGINALS


def test_training_goes_on_as_before() -> None:
    module = Checkpointed("not reentrant").train()
    before = copy.deepcopy(module.state_dict())
    project(module, pictures(), "blocks.1.0", 3)
    assert module.training and all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module(pictures()).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
