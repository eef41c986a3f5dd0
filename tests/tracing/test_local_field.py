"""Local fields against the literal definition: the pixels on which the gradient with constant gates is not zero."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from helpers.fields import CONVOLVED, Calls, Linearised, check, outputs_of, places, positive, sees, support
from interpret import project, trace
from interpret.backprop.rules import BackwardRule, Rule
from interpret.network.layers import first_outputs
from interpret.tracing.receptive_field import ReceptiveField

# ---- single operations -----------------------------------------------------------------------------------------------


def gate(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True).sigmoid()


def in_place(x: Tensor) -> Tensor:
    x *= gate(x)
    return F.relu_(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * gate(x),
        lambda x: gate(x) * x,
        in_place,
        lambda x: x.relu().mul(gate(x)).relu(),
        lambda x: x + x * gate(x),
        lambda x: x * F.hardsigmoid(F.adaptive_avg_pool2d(x, 1)),
        lambda x: x * x.mean((2, 3), keepdim=True),  # broadcast, though nothing squashed it
        lambda x: x / x.norm(dim=(2, 3), keepdim=True),
        lambda x: x * F.interpolate(F.avg_pool2d(x, 4).sigmoid(), (12, 16)),  # gather-excite
        lambda x: x * x.amax(1, keepdim=True).flatten(2).softmax(-1).view(1, 1, 12, 16),  # spatial attention
        lambda x: (torch.stack([x, -x], 1) * torch.stack([gate(x), gate(-x)], 1).softmax(1)).sum(1),  # selective kernel
        lambda x: F.group_norm(x, 2),
        lambda x: F.instance_norm(x),
        lambda x: F.layer_norm(x, x.shape[1:]),
        lambda x: F.rms_norm(x, x.shape[1:]),
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: x + x.mean().detach(),
    ],
)
def test_gates_are_held_constant(function: Callable[[Tensor], Tensor]) -> None:
    layer = sees(function)
    assert layer.receptive_field is None and not layer.croppable
    assert layer.local_field == CONVOLVED and layer.axes == (-2, -1)


def test_gates_that_see_a_window_widen_only_the_receptive_field() -> None:
    layer = sees(lambda x: x * F.avg_pool2d(x, 5, 1, 2).mean(1, keepdim=True).sigmoid())
    assert layer.receptive_field == ReceptiveField((7, 7), (1, 1), (-3, -3)) and layer.croppable
    assert layer.local_field == CONVOLVED


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + x.mean((2, 3), keepdim=True),  # a sum, not a product
        lambda x: x * F.interpolate(F.avg_pool2d(x, 12).expand(-1, -1, 12, 16), (12, 16)),  # neither is the gate
        lambda x: x.mean((2, 3), keepdim=True) / x,  # what is divided carries the signal
        lambda x: x - x.mean((1, 2, 3), keepdim=True),
        lambda x: x.softmax(-1),
        lambda x: x.flip(-1) * gate(x),
        lambda x: x[:, :, x.mean((0, 1, 3)).argsort()],  # each image moves its rows elsewhere
    ],
)
def test_what_is_no_gate_stays_global(function: Callable[[Tensor], Tensor]) -> None:
    layer = sees(function)
    assert layer.receptive_field is None and layer.local_field is None


def test_a_gate_alone_is_global() -> None:
    layers = trace(nn.Sequential(nn.Conv2d(3, 4, 3), SqueezeExcitation(4, 2)), (3, 12, 12))
    assert layers["1"].local_field == ReceptiveField((3, 3), (1, 1), (0, 0))
    assert layers["1.fc1"].local_field is None and layers["1.scale_activation"].local_field is None


def test_a_layer_that_gets_no_signal_keeps_its_receptive_field() -> None:
    assert sees(lambda x: (x > 0).float()).local_field == CONVOLVED
    assert sees(lambda x: x.detach()).local_field == CONVOLVED


def test_what_a_network_keeps_of_its_forward_pass_holds_no_graph() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last, self.all = nn.Conv2d(3, 4, 3), None, []

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.conv(x)
            self.all.append(self.last.relu())
            return self.all[-1]

    network = Keeps()
    trace(network, (3, 8, 8))
    assert not network.all[0].requires_grad
    copy.deepcopy(network)


def test_a_network_that_cannot_run_under_a_rule_is_still_traced() -> None:
    traced = trace(Calls(lambda x: torch.from_numpy((x * gate(x)).numpy())), (3, 12, 16))
    assert not traced.has_signal and traced["conv"].local_field == CONVOLVED and traced["end"].local_field is None
    assert trace(Calls(torch.relu), (3, 12, 16)).has_signal


# ---- whole networks --------------------------------------------------------------------------------------------------


class GatesHeld(Linearised):
    """Holds constant whatever a squashing function made, and the smaller factor or the divisor of two."""

    IDENTITY = (
        *Linearised.IDENTITY,
        *"silu silu_ hardswish hardswish_ leaky_relu leaky_relu_ elu elu_ prelu mish mish_ relu6_".split(),
        *"group_norm instance_norm rms_norm".split(),
    )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.strip("_")
        if name in ("sigmoid", "hardsigmoid", "softmax", "tanh"):
            return func(*args, **(kwargs or {})).detach()
        if name in ("mul", "imul", "div", "truediv") and all(isinstance(value, Tensor) for value in args):
            x, y = args
            if name.endswith("div") or x.numel() > y.numel():
                y = y.detach()
            elif y.numel() > x.numel():
                x = x.detach()
            args = (x, y)
        return super().__torch_function__(func, types, args, kwargs)


def check_behind_gates(network: nn.Module, shape: tuple[int, int, int], most: int = 6) -> int:
    """Compare local fields of convolutions behind gates with the support of the gradient.

    Return of how many windows all four edges were met.
    """
    network, side = positive(network), shape[1:]
    layers = {
        name: layer
        for name, layer in trace(network, shape).items()
        if isinstance(network.get_submodule(name), nn.Conv2d) and layer.local_field != layer.receptive_field
    }
    smaller = [name for name, layer in layers.items() if max(layer.local_field.size) < min(side)]  # type: ignore[union-attr]
    chosen = (smaller or list(layers))[:: max(1, len(smaller or layers) // most)][:most]
    image = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
    with GatesHeld():
        outputs = outputs_of(network, image, chosen)
    for name, output in outputs.items():
        layer = layers[name]
        assert layer.local_field is not None
        met = set()
        for position in places(layer):
            met |= check(support(output, image, layer, position), layer.local_field.window(position), side)
        assert met == {0, 1, 2, 3} or name not in smaller, f"{name}: {met}"
    return len(set(smaller) & set(chosen))


SMALLEST = """
    test_vit eca_resnet33ts beit_base_patch16_224 halonet_h1 poolformerv2_s12 cait_xxs24_224 coat_tiny
    test_coatnet convit_tiny convmixer_768_32 test_convnext cpubone_nano crossvit_tiny_240 cs3darknet_focus_s
    csatv2 cspnext_tiny davit_tiny deepseek_vit_412m deit_tiny_patch16_224 densenet121 dla34 test_nfnet dpn48b
    ese_vovnet19b_slim_dw seresnet18 edgenext_xx_small efficientformer_l1 efficientformerv2_s0 tinynet_e
    efficientvim_m1 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8
    mobilenetv3_small_050 focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m ghostnet_050 gmlp_ti16_224
    hardcorenas_b hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny hrnet_w18_small iformer_t inception_next_atto
    inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small legacy_seresnet18 legacy_xception levit_128s
    lowformer_b0 test_mambaout mobilenetv5_base mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_parfac_gap
    nasnetalarge nest_tiny nextvit_small pit_ti_224 pnasnet5large pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnety_002
    repghostnet_050 repvit_m1 res2next50 resnest14d resnetv2_18 rexnet_100 samvit_base_patch16_224 selecsls42
    sequencer2d_s shvit_s1 skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224
    swinv2_tiny_window8_256 swinv2_cr_tiny_224 test_vit_relpos tiny_vit_5m_224 tnt_s_legacy_patch16_224
    tresnet_m twins_svt_small vgg11 visformer_tiny vit_tiny_r_s16_p8_224 vitamin_small_224 volo_d1_224
    xception41p xcit_nano_12_p8_224
""".split()
"""About the smallest network of each of timm's families, with gates where the family has some."""


@pytest.mark.parametrize(
    ("name", "side"),
    [("mobilenetv3_small_050", 96), ("tinynet_e", 106), ("test_nfnet", 96), ("ese_vovnet19b_slim_dw", 96)],
)
def test_behind_gates_windows_are_the_support_of_the_gradient(name: str, side: int) -> None:
    timm = pytest.importorskip("timm")
    assert check_behind_gates(timm.create_model(name), (3, side, side + 7), most=3) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_in_all_families_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        try:
            on_meta = timm.create_model(name).eval()
        except NotImplementedError:  # which computes with numbers as it is made
            on_meta = timm.create_model(name).eval()
    shape = on_meta.default_cfg["input_size"]
    traced = trace(on_meta, shape)
    convolutions = [layer for n, layer in traced.items() if isinstance(on_meta.get_submodule(n), nn.Conv2d)]
    if any(layer.local_field != layer.receptive_field for layer in convolutions):
        check_behind_gates(timm.create_model(name), shape)


@pytest.mark.slow
def test_all_families_of_timm_are_there() -> None:
    registry = pytest.importorskip("timm.models._registry")
    assert {registry._model_to_module[name] for name in SMALLEST} == set(registry._model_to_module.values())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rule"), [("tinynet_e", "deconvnet"), ("test_nfnet", "guided")])
def test_behind_gates_a_projection_is_that_of_the_whole_image(name: str, rule: Rule) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model(name).double().eval()
    image = torch.rand(1, 3, 106, 99, dtype=torch.float64)
    layers = [
        layer
        for n, layer in trace(network, (3, 106, 99)).items()
        if isinstance(network.get_submodule(n), nn.Conv2d) and layer.local_field != layer.receptive_field
    ]
    parts = 0
    for layer in layers[:: len(layers) // 3]:
        for position in places(layer):
            x = image.clone().requires_grad_()
            outputs: dict[str, Tensor] = {}
            stopping = first_outputs(network, [layer.name], outputs.__setitem__, stop=True)
            with torch.enable_grad(), BackwardRule(network, rule), stopping:
                network(x.clone())
            neuron = outputs[layer.name][0, 1, position[0], position[1]]
            (whole,) = torch.autograd.grad(neuron, x, neuron.detach())
            found = project(network, image, layer.name, 1, position, rule)
            torch.testing.assert_close(found.full((106, 99)), whole, rtol=1e-9, atol=1e-12 * float(whole.abs().max()))
            parts += found.pixels.shape[2:] != image.shape[2:]
    assert parts >= 3
