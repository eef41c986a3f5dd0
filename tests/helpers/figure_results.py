"""One result of every kind, small and made up, with as many and as long names as figures meet in earnest."""

from __future__ import annotations

from typing import Any

import numpy as np

from interpret.analyses.attribution.result import METHODS
from interpret.analyses.correspondence.result import Correspondence
from interpret.analyses.costs.result import NetworkCosts
from interpret.analyses.effective_fields.result import EffectiveFields
from interpret.analyses.evolution.result import Evolution
from interpret.analyses.feature_maps.result import FeatureMaps
from interpret.analyses.invariance.result import InvarianceCurves
from interpret.analyses.methods.result import MethodComparison
from interpret.analyses.neighbours.result import Neighbours
from interpret.analyses.occlusion.result import Occlusion
from interpret.analyses.predictions.result import Predictions
from interpret.analyses.sanity.result import SanityCheck
from interpret.analyses.synthesis.activation_atlas import ActivationAtlas
from interpret.analyses.synthesis.inversions import Inversions
from interpret.analyses.synthesis.result import Synthesised
from interpret.results import Result

LONG = [
    "backbone.encoder.stages.2.blocks.17.inverted_bottleneck.depthwise_convolution",
    "module.features.denseblock4.denselayer32.norm_relu_conv.expand3x3.with_a_very_long_name",
]
CLASSES = ["tench, Tinca tinca", "European fire salamander, Salamandra salamandra", "cock", "$2 bill, or £3",
           "Bouvier", "hammerhead shark of the genus Sphyrna", "7",
           "an_unbroken_name_of_a_class_without_any_space_in_it"]  # fmt: skip


def layer_names(count: int) -> list[str]:
    """Return names of layers, short ones, middling ones and long ones."""
    return [
        f"features.{n}.expand3x3" if n % 3 else LONG[n % 2] + f".{n}" if n % 2 else f"conv{n}" for n in range(count)
    ]


def make(kind: str, layers: int = 26, images: int = 4) -> Result:
    """Return a result of a kind, of so many layers and images."""
    random = np.random.default_rng(0)
    names = layer_names(layers)
    pictures = random.integers(0, 256, (images, 32, 40, 3), np.uint8)

    def curves(*shape: int) -> Any:
        return np.abs(random.normal(size=shape)).cumsum(-1)

    if kind == "predictions":
        top = np.stack([random.permutation(len(CLASSES))[:5] for _ in range(images)])
        shares = -np.sort(-random.dirichlet(np.ones(5), images), 1)
        return Predictions("net", "photographs", ["a"] * images, pictures, top, shares, top[:, 1], shares[:, 1],
                           CLASSES)  # fmt: skip
    if kind == "feature-maps":
        maps = {
            name: random.normal(size=(96, 9, 12)).astype(np.float32) if place % 3 else
            np.abs(random.normal(size=100 * place + 10)).astype(np.float32)
            for place, name in enumerate(names[: layers // 3 + 1])
        }  # fmt: skip
        return FeatureMaps("a network with a long name", pictures[0], maps, dict.fromkeys(maps, "Conv2dNormActivation"))
    if kind == "evolution":
        epochs, units = np.array([1, 2, 5, 10, 20, 30, 40, 64]), min(images, 5)
        some = names[: max(1, layers // 4)]
        return Evolution(
            "net", "photographs", 4000, "deconvnet", "RGB", epochs,
            units={name: np.arange(units) * 100 for name in some},
            values={name: curves(units, 8).astype(np.float32) for name in some},
            images={name: random.integers(0, 3, (units, 8)) for name in some},
            positions={name: np.zeros((units, 8, 2), np.int64) for name in some},
            projections={name: random.normal(size=(units, 8, 3, 9, 9)).astype(np.float32) for name in some},
            patches={name: random.integers(0, 256, (units, 8, 9, 9, 3), np.uint8) for name in some},
            movement={name: np.geomspace(0.3, 0.002, 7) * random.uniform(0.5, 2, 7) for name in some},
            movement_errors={name: np.full(7, 0.001) for name in some}, sample=100,
        )  # fmt: skip
    if kind == "invariance":
        values = np.arange(-60, 61, 6.0)
        return InvarianceCurves(
            "translation", "vertical translation (pixels)", 0.0, values,
            distances={name: np.abs(values) / 60 * random.uniform(0.3, 1.5, (images, 1)) for name in names},
            norms={name: np.ones(images) for name in names},
            probabilities=random.uniform(0, 1, (images, len(values))), labels=np.arange(images),
            names=CLASSES[: min(images, 5)], examples=random.integers(0, 256, (min(images, 5), 5, 32, 32, 3), np.uint8),
            example_rows=np.arange(min(images, 5)), example_values=np.array([-60.0, -30, 0, 30, 60]), model="net",
        )  # fmt: skip
    if kind == "occlusion":
        places = images, 9, 11
        return Occlusion(
            np.arange(9) * 4 - 2, np.arange(11) * 4 - 2, [6, 6], np.arange(images) % len(CLASSES),
            random.uniform(0, 1, places), np.full(images, 0.9), random.integers(0, len(CLASSES), places),
            np.arange(images) % len(CLASSES), names[-1], np.arange(images) * 111, random.uniform(0, 12345.6, places),
            np.full(images, 12000.0), pictures, pictures[::-1].copy(),
            {str(row): random.integers(0, 256, (3, 20, 20, 3), np.uint8) for row in range(0, images, 2)}, CLASSES,
            "net", {"stride": [4, 4], "fill": "grey"},
        )  # fmt: skip
    if kind == "neighbours":
        near = random.integers(0, 256, (images, 6, 32, 40, 3), np.uint8)
        return Neighbours(
            "net", "photographs", 4000, names[-1], False, "euclidean", ["a"] * images, pictures,
            np.arange(images) % len(CLASSES), np.zeros((images, 6), np.int64), curves(images, 6) * 100, near,
            [["b"] * 6] * images, random.integers(-1, len(CLASSES), (images, 6)), CLASSES,
        )  # fmt: skip
    if kind == "correspondence":
        parts = ["mouth", "eye on the left", "a part of the face with a long name", "nose"][: max(1, images)]
        return Correspondence(
            "net", 26, parts, 5, "mean", dict.fromkeys(names, 100),
            scores={name: random.uniform(0.01, 0.1, (3, len(parts))) for name in names},
            errors={name: np.full((3, len(parts)), 0.004) for name in names},
            gains={name: random.uniform(0, 0.1, (2, len(parts))) for name in names},
            gain_errors={name: np.full((2, len(parts)), 0.004) for name in names},
        )  # fmt: skip
    if kind == "methods":
        numbers = {method: random.uniform(-0.7, 1, images) for method in METHODS}
        return MethodComparison(
            "net", None, pictures,
            {method: random.normal(size=(images, 32, 40)).astype(np.float32) for method in METHODS},
            np.arange(images), np.arange(images) + 1, [CLASSES[i % 8] for i in range(images)],
            [CLASSES[(i + 1) % 8] for i in range(images)], np.ones(images), np.ones(images), numbers, numbers, {},
        )  # fmt: skip
    if kind == "sanity":
        steps = ["", *names]
        one = {method: random.uniform(-0.6, 1, (images, len(steps))) for method in METHODS}
        maps = {method: random.normal(size=(len(steps), 32, 40)).astype(np.float16) for method in METHODS}
        return SanityCheck("net", None, steps, np.arange(len(steps)), len(names), one, one, one, pictures, maps,
                           CLASSES, 0, np.zeros(len(steps), np.int64), {})  # fmt: skip
    if kind in ("trace", "mined", "mined-layer", "unit", "projections", "attribution", "comparison"):
        return of_a_network(kind, layers, images)
    if kind == "synthesised":
        numbers = random.uniform(0.1, 2, images)
        shares = {how: random.uniform(0, 1, images) for how in ("jpeg", "shift", "blur")}
        return Synthesised(
            "a network with a long name", LONG[0], [f"neuron {unit} of {LONG[0]}" for unit in range(images)],
            np.arange(images) * 100, pictures, numbers * 1000, np.arange(images) % 2, natural_values=1000 / numbers,
            natural_pictures=pictures[::-1].copy(), kept=shares, natural_kept=shares, distances=numbers,
            distance_layers=LONG, stopped=np.where(np.arange(images) == 1, 17, -1),
            settings={"steps": 160, "parametrisation": "fourier", "start": False}, data="photographs",
        )  # fmt: skip
    if kind == "inversions":
        some = names[: max(1, layers // 4)]
        errors = random.uniform(0, 1, (2, len(some), images))
        return Inversions("net", some, np.stack([pictures] * len(some)), pictures, errors[0], errors[1])
    if kind == "atlas":
        rows = np.arange(images)
        return ActivationAtlas("a network with a long name", LONG[0], (3, 4), np.stack([rows // 4, rows % 4], 1),
                               rows + 1, pictures, 1.0 * rows, [CLASSES[row % len(CLASSES)] for row in rows],
                               np.full(images, 0.5))  # fmt: skip
    if kind == "effective-fields":
        sides = np.linspace(3, 60, layers).astype(int)
        places = [np.arange(side) - side / 2 for side in sides.tolist()]
        energy = {
            name: np.exp(-(at[:, None] ** 2 + at**2) / len(at)).astype(np.float32)
            for name, at in zip(names, places, strict=True)
        }
        boxes = np.stack([sides // 4, sides // 4, sides - sides // 4, sides - sides // 4], 1)
        return EffectiveFields("net", "photographs", images, 0.95, names, boxes, np.stack([sides, sides], 1), energy)
    assert kind == "costs"
    costs = [f"{family}{n}_{n}gf_with_a_tail" for n in range(max(1, layers // 2))
             for family in ("resnet", "vgg", "efficientnet_b", "regnet_y", "mobilenet_v", "vit_b_")]  # fmt: skip
    count = len(costs)
    macs = np.geomspace(0.05, 360, count) * random.uniform(0.5, 2, count)
    return NetworkCosts(costs, random.uniform(60, 88, count), macs, macs, random.integers(10**6, 6 * 10**8, count),
                        np.ones(count, np.int64), np.full(count, 224))  # fmt: skip


def of_a_network(kind: str, layers: int, images: int) -> Any:
    """Return a result that needs a network: one of many layers with long names."""
    import torch
    from torch import nn

    import interpret

    torch.manual_seed(0)
    network = nn.Sequential()
    inner: nn.Module = network
    if layers > 1:
        for name in LONG[0].split("."):
            inner.add_module(name, nn.Sequential())
            inner = getattr(inner, name)
    for number in range(layers):
        inner.add_module(f"conv{number}", nn.Conv2d(3 if number == 0 else 8, 8, 3, padding=1))
        inner.add_module(f"relu{number}", nn.ReLU())
    network.eval()
    some = torch.rand(images, 3, 32, 40)
    name = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)][min(1, layers - 1)]
    if kind == "trace":
        return interpret.trace(network, (3, 32, 40))
    if kind == "projections":
        return interpret.project(network, some, name, channels=3)
    if kind == "attribution":
        pooled = nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        return interpret.attribute(pooled, some, "gradient")
    mined = interpret.mine(network, some, k=min(images, 9))
    if kind == "comparison":
        with torch.no_grad():
            network.get_submodule(name).weight.normal_()  # type: ignore[operator]
        return interpret.compare(mined, interpret.mine(network, some, k=min(images, 9)))
    return mined if kind == "mined" else mined[name] if kind == "mined-layer" else mined[name].unit(3)
