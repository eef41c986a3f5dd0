"""Mine and project the smallest network of each of timm's families, check their fields, and write docs/families.md.

    python benchmarks/families.py                          # all families, 40 minutes on two idle cores
    python benchmarks/families.py levit_128s vgg11         # some networks
    python benchmarks/families.py levit_128s --update      # and replace their rows of the table
    python benchmarks/families.py --state families.jsonl   # keep what is done, and go on from there

Weights are random. A projection is compared with plain autograd through functions that were replaced by hand
(tests/helpers/by_hand.py), in float64, and a field with the support of the gradient (tests/helpers/fields.py).
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import interpret
from interpret import InterpretError
from interpret.backprop.rules import UncoveredOperation
from interpret.support.files import any_file, replacing

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

SIDES = (96, 128, 160, 192, 224, 256)
"""The smallest side of images that a network takes is used."""
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)
WITH_UNITS = (*CONVOLUTIONS, nn.Linear)
RULES = ("deconvnet", "guided", "gradient")

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


def network_of(name: str) -> nn.Module:
    """Build a network with random weights, the same each time."""
    import timm

    torch.manual_seed(0)
    network: nn.Module = timm.create_model(name).eval()
    for weight in network.parameters():
        if weight.dim() > 1 and not weight.any():  # a head of zeros passes no signal
            nn.init.normal_(weight, std=0.02)
    return network


def input_shape(network: Any) -> tuple[int, int, int]:
    """Return the shape of the smallest images that a network takes, of a few sizes."""
    default = tuple(network.default_cfg["input_size"])
    for side in SIDES:
        try:
            with torch.inference_mode():
                network(torch.zeros(1, default[0], side, side))
        except Exception:  # timm's networks raise anything
            continue
        return default[0], side, side
    return default


def examine(name: str, network: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """Examine one network, on images of a shape."""
    traced = interpret.trace(network, shape)
    with_units = [layer for layer in traced.values() if isinstance(network.get_submodule(layer.name), WITH_UNITS)]
    found: dict[str, Any] = {
        "network": name,
        "family": type(network).__module__.rpartition(".")[2],
        "shape": list(shape),
        "parameters": traced.params,
        "convolution_first": bool(with_units) and isinstance(network.get_submodule(with_units[0].name), CONVOLUTIONS),
        "layers": len(with_units),
        "unplaced": [layer.name for layer in with_units if layer.units is None or not layer.batched],
    }
    convolutions = [layer for layer in with_units if layer.kind != "Linear"]
    found["convolutions"] = len(convolutions)
    found["receptive_fields"] = sum(layer.receptive_field is not None for layer in convolutions)
    found["local_fields"] = sum(layer.local_field is not None for layer in convolutions)
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    try:
        mined = interpret.mine(network, images, k=1)
    except InterpretError as error:
        return found | {"refused": str(error)}
    found["mined"] = len(mined)
    layer = list(mined)[-1]
    found["projected"] = layer
    network, image = network.double(), images[:1].double()
    for rule in RULES:
        found[rule] = compare(network, image, layer, rule)
    return found


def compare(network: nn.Module, image: Tensor, layer: str, rule: Any) -> dict[str, Any]:
    """Compare the projection of a neuron with the reference; return the error, and what the rule does not cover."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = interpret.project(network, image, layer, 0, rule=rule, start="one")
    uncovered = [one.message.operations for one in warned if isinstance(one.message, UncoveredOperation)]
    expected = by_hand(network, image, layer, rule)
    largest = float(expected.abs().max())
    error = float((found.full(tuple(image.shape[2:])) - expected).abs().max())
    return {
        "error": error / largest if largest else error,
        "silent": not largest,
        "uncovered": sorted({operation for operations in uncovered for operation, _ in operations}),
    }


def by_hand(network: nn.Module, image: Tensor, layer: str, rule: str) -> Tensor:
    """Return the signal of a layer's first unit where it is strongest, by plain autograd."""
    from helpers.by_hand import ByHand

    kept: list[Tensor] = []
    part = network.get_submodule(layer)
    hook = part.register_forward_hook(lambda module, inputs, output: kept.append(output.clone()))
    x = image.clone().requires_grad_()
    for weight in network.parameters():
        weight.requires_grad_(False)
    try:
        with nullcontext() if rule == "gradient" else ByHand(rule):
            network(x * 1)
    finally:
        hook.remove()
    output = kept[0]
    unit = output[..., 0] if isinstance(part, nn.Linear) else output[:, 0]
    (signal,) = torch.autograd.grad(unit.flatten()[unit.argmax()], x)
    return signal


def check_fields(network: nn.Module, shape: tuple[int, ...]) -> str:
    """Return whether local fields are the support of the gradient with constant gates."""
    from helpers.fields import check_behind_gates

    try:
        return str(check_behind_gates(network, shape, most=3, all_convolutions=True))
    except AssertionError as error:
        return str(error).splitlines()[0]


def examined(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    """Examine a network and check its fields; an error is what is found of it."""
    try:
        network = build()
        shape = shape or input_shape(network)
        found = examine(name, network, shape)
        # built anew, since it was examined in float64
        return found | {"checked": check_fields(build(), shape) if len(shape) == 3 else ""}
    except Exception as error:  # the table says so, and goes on
        failed = f"{type(error).__name__}: {error}"
        return {"network": name, "family": "", "shape": [0, 0, 0], "failed": failed}


TITLES = """| mined | convs | fields | local | checked | deconvnet | guided | gradient | uncovered |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"""
"""The columns that any table of networks has, and the line below their titles."""

INTRODUCTION = """# Networks of timm

Written by `benchmarks/families.py`: {done} networks, each about the smallest of one of timm's {families} families,
with random weights. All rows are of one run; where something changes for a network later, its row is measured again
(`--update`).

- *Mined*: how many of the convolutions and linear layers that run `interpret.mine` takes with no argument. The others
  return tokens without a known grid, as with a class token.
- *Fields*, *local*: how many of the convolutions have a receptive field that is a window, and a local one, with gates
  held constant. *Checked*: for so many of up to three, the local field is the support of the gradient, with gates held
  constant, up to all of its edges inside the image; one that is a bound holds the support. Bounds that hold the whole
  image count as none: in images of 512 pixels, all 91 convolutions of `hrnet_w18_small` have a field.
- *Deconvnet*, *guided*, *gradient*: the largest difference, relative to the largest value, between the projection of
  the last mined layer's first unit and plain autograd through functions that were replaced by hand (one for each
  rectifier, normalisation, gate and attention), in float64.
- *Uncovered*: operations on the signal that the deconvnet names in a warning, since it is not decided which factor is
  held. There the gradient stands in, and the reference by hand may hold another factor, or none. FocalNet multiplies
  two linear maps of one input, of which neither is bounded: its paper calls the one with a context the modulator of a
  query, while other papers (VAN, Conv2Former) call that one the attention, which would be held. A rule that chose one
  would be wrong for the other; `interpret.Composite` passes the signal through it by a function of your own.

Which factor of a product is held, the reference decides by the same words as the rules. So layers of six networks are
also patched one by one from the equations of their papers (tests/backprop/test_by_paper.py).

| family | network | side {titles}
"""


def row(found: dict[str, Any]) -> str:
    """Return a network's row of the table."""
    cells = [found["family"], found["network"], str(found["shape"][1])]
    if "refused" in found or "failed" in found:
        said = (found.get("refused") or found["failed"]).replace("|", "\\|").replace("\n", " ")
        return f"| {' | '.join([*cells, said, *[''] * 8])} |"
    cells += [f"{found['mined']} of {found['layers']}", str(found["convolutions"])]
    cells += [str(found["receptive_fields"]), str(found["local_fields"]), found.get("checked", "")]
    cells += ["no signal" if found[rule]["silent"] else f"{found[rule]['error']:.0e}" for rule in RULES]
    return f"| {' | '.join([*cells, ', '.join(found['deconvnet']['uncovered'])])} |"


def read_state(state: Path | None) -> list[dict[str, Any]]:
    """Return what was found of the networks that are done."""
    return list(map(json.loads, state.read_text().splitlines())) if state and state.exists() else []


def finish(found: dict[str, Any], state: Path | None) -> None:
    """Print a network's row, and keep what was found of it."""
    print(row(found), flush=True)
    gc.collect()
    if state:
        with state.open("a") as file:
            file.write(json.dumps(found) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="of timm; none: the smallest of each family")
    parser.add_argument("--state", type=Path, help="a file of what is done, one JSON object a line")
    parser.add_argument("--table", action="store_true", help="only write the table of what is done")
    parser.add_argument("--update", action="store_true", help="replace the rows of the networks that were named")
    parser.add_argument("--out", type=Path, default=Path("docs/families.md"))
    options = parser.parse_args()
    done = {one["network"]: one for one in read_state(options.state)}
    for name in () if options.table else options.networks or SMALLEST:
        if name in done:
            continue
        done[name] = examined(name, lambda name=name: network_of(name))
        finish(done[name], options.state)
    if options.update:
        fresh = {name: row(done[name]) for name in options.networks}
        kept = options.out.read_text(encoding="utf-8").splitlines()
        lines = [fresh.get(line.split("|")[2].strip(), line) if line.count("|") > 2 else line for line in kept]
        with replacing(options.out, any_file) as new:
            new.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    chosen = [done[name] for name in options.networks or SMALLEST if name in done]
    text = INTRODUCTION.format(families=len(SMALLEST), done=len(chosen), titles=TITLES) + "\n".join(
        map(row, sorted(chosen, key=lambda one: one["family"]))
    )
    if not options.networks:
        with replacing(options.out, any_file) as new:
            new.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
