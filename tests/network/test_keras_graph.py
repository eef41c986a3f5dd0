"""Networks of Keras: every layer gives what Keras gives, channels first, and what follows from it."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

import interpret
from helpers.packages import needs
from interpret.loading.keras_model import keras_on_torch
from interpret.network.keras_graph import KerasGraph
from interpret.network.keras_layers import MapLayout
from interpret.network.wrappers import plain_network
from interpret.support.errors import InterpretError

pytestmark = needs("keras")
LARGE = os.environ.get("INTERPRET_KERAS") == "all"
"""Whether all networks of `keras.applications` are tested, and not only some small ones."""


@pytest.fixture(scope="module")
def keras() -> Any:
    with keras_on_torch():
        return importlib.import_module("keras")


def close(one: Any, other: Any, tolerance: float = 2e-5) -> bool:
    """Return whether two tensors are equal but for rounding, relative to the largest value."""
    one, other = torch.as_tensor(one).detach(), torch.as_tensor(other).detach()
    return one.shape == other.shape and bool((one - other).abs().max() <= tolerance * other.abs().max())


def draw_statistics(model: Any) -> None:
    """Give normalisations statistics, scales and offsets that a mistake would show."""
    generator = torch.Generator().manual_seed(0)
    for variable in model.variables:
        shape = tuple(variable.shape)
        if variable.path.endswith(("moving_variance", "gamma")):
            variable.assign(torch.rand(shape, generator=generator) + 0.5)
        elif any(name in variable.path for name in ("moving_mean", "beta", "bias")):
            variable.assign(torch.randn(shape, generator=generator) * 0.1)


# ---- every layer ----------------------------------------------------------------------------------------------------


def residual_block(keras: Any) -> Any:
    """Return a layer of the user's own, with layers inside it."""

    class Residual(keras.Layer):
        def __init__(self, units: int, **settings: Any) -> None:
            super().__init__(**settings)
            self.conv1 = keras.layers.Conv2D(units, 3, padding="same", activation="relu", name="conv1")
            self.conv2 = keras.layers.Conv2D(units, 3, padding="same", name="conv2")

        def build(self, shape: Any) -> None:
            self.conv1.build(shape)
            self.conv2.build(self.conv1.compute_output_shape(shape))

        def call(self, images: Any) -> Any:
            return keras.ops.relu(images + self.conv2(self.conv1(images)))

    return Residual


def opaque_block(keras: Any) -> Any:
    """Return a layer of the user's own whose operations are those of torch, which Keras cannot follow."""

    class Opaque(keras.Layer):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.scale = keras.layers.Dense(4, name="scale")

        def build(self, shape: Any) -> None:
            self.scale.build(shape)

        def call(self, images: Any) -> Any:
            return torch.sin(self.scale(images))

        def compute_output_shape(self, shape: Any) -> Any:
            return (*shape[:-1], 4)

        def compute_output_spec(self, images: Any) -> Any:
            return keras.KerasTensor((*images.shape[:-1], 4), images.dtype)

    return Opaque


LAYERS: dict[str, Callable[[Any], Any]] = {
    "same": lambda k: k.layers.Conv2D(6, 3, padding="same"),
    "same, strided": lambda k: k.layers.Conv2D(6, 3, 2, padding="same"),
    "same, strided, odd": lambda k: k.layers.Conv2D(6, 5, (3, 2), padding="same"),
    "same, even": lambda k: k.layers.Conv2D(6, (2, 4), padding="same", activation="gelu"),
    "same, stride above the kernel": lambda k: k.layers.Conv2D(6, 1, 3, padding="same", use_bias=False),
    "dilated": lambda k: k.layers.Conv2D(6, 3, dilation_rate=(2, 3), padding="same", activation="leaky_relu"),
    "dilated, valid": lambda k: k.layers.Conv2D(6, 3, dilation_rate=2),
    "groups": lambda k: k.layers.Conv2D(6, 3, groups=2, activation="silu"),
    "depthwise": lambda k: k.layers.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=3),
    "depthwise, dilated": lambda k: k.layers.DepthwiseConv2D(3, dilation_rate=2, activation="relu6"),
    "separable": lambda k: k.layers.SeparableConv2D(6, 3, 2, padding="same", depth_multiplier=2, activation="elu"),
    "transposed": lambda k: k.layers.Conv2DTranspose(6, 3, 2, padding="same", activation="relu"),
    "transposed, valid": lambda k: k.layers.Conv2DTranspose(6, 2, 3),
    "transposed, more": lambda k: k.layers.Conv2DTranspose(6, (5, 4), (2, 3), padding="same", output_padding=(1, 2)),
    "dense on maps": lambda k: k.layers.Dense(6, activation="softmax"),
    "norm": lambda k: k.layers.BatchNormalization(epsilon=0.01),
    "norm without scale": lambda k: k.layers.BatchNormalization(scale=False),
    "norm without offset": lambda k: k.layers.BatchNormalization(center=False),
    "norm of rows": lambda k: k.layers.BatchNormalization(axis=1),
    "layer norm": lambda k: k.layers.LayerNormalization(),
    "group norm": lambda k: k.layers.GroupNormalization(2, epsilon=0.01),
    "group norm without scale": lambda k: k.layers.GroupNormalization(-1, scale=False),
    "group norm without offset": lambda k: k.layers.GroupNormalization(1, center=False),
    "group norm of rows": lambda k: k.layers.GroupNormalization(11, axis=1),
    "maxima, same": lambda k: k.layers.MaxPooling2D(3, 2, padding="same"),
    "maxima": lambda k: k.layers.MaxPooling2D((2, 3)),
    "means, same": lambda k: k.layers.AveragePooling2D(2, 2, padding="same"),
    "means": lambda k: k.layers.AveragePooling2D(3, 2),
    "margins": lambda k: k.layers.ZeroPadding2D(((0, 1), (2, 0))),
    "cropped": lambda k: k.layers.Cropping2D(((0, 1), (2, 0))),
    "larger": lambda k: k.layers.UpSampling2D(2),
    "prelu": lambda k: k.layers.PReLU(shared_axes=(1, 2), alpha_initializer="uniform"),
    "leaky": lambda k: k.layers.Conv2D(6, 3, activation=k.layers.LeakyReLU(0.1)),
    "rescaled": lambda k: k.layers.Rescaling(1 / 127.5, -1),
    "normalised": lambda k: k.layers.Normalization(mean=(0.1, 0.2, 0.3, 0.4), variance=(1, 2, 3, 4)),
    "rearranged": lambda k: k.layers.Permute((2, 1, 3)),
    "own": lambda k: residual_block(k)(4),
    "opaque": lambda k: opaque_block(k)(),
    "half": lambda k: k.layers.Conv2D(6, 3, dtype="mixed_bfloat16"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_what_keras_gives(keras: Any, name: str) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((11, 14, 4)), LAYERS[name](keras), keras.layers.Flatten()])
    draw_statistics(model)
    images = torch.randn(3, 4, 11, 14)
    expected = model(MapLayout(True).channels_last(images), training=False)
    network = plain_network(model).eval()
    assert close(network(images).float(), expected.float(), 0.01 if name == "half" else 2e-5)
    assert sum(one.numel() for one in network.parameters()) == sum(math.prod(v.shape) for v in model.trainable_weights)
    tensors = [*network.parameters(), *network.buffers()]
    assert sum(one.numel() for one in tensors) == model.count_params()


OTHER_AXES: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "signal": ((23,), lambda k: k.layers.Conv1D(6, 5, 2, padding="same", activation="relu")),
    "signal, causal": ((23,), lambda k: k.layers.Conv1D(6, 3, dilation_rate=2, padding="causal")),
    "signal, depthwise": ((23,), lambda k: k.layers.DepthwiseConv1D(3, depth_multiplier=2)),
    "signal, separable": ((23,), lambda k: k.layers.SeparableConv1D(6, 3, padding="same")),
    "signal, transposed": ((23,), lambda k: k.layers.Conv1DTranspose(6, 3, 2)),
    "signal, norm": ((23,), lambda k: k.layers.BatchNormalization()),
    "signal, maxima": ((23,), lambda k: k.layers.MaxPooling1D(3, 2, padding="same")),
    "signal, means": ((23,), lambda k: k.layers.AveragePooling1D(2)),
    "signal, dense": ((23,), lambda k: k.layers.Dense(6)),
    "signal, larger": ((23,), lambda k: k.layers.UpSampling1D(2)),
    "volume": ((5, 6, 7), lambda k: k.layers.Conv3D(6, 3, (1, 2, 2), padding="same", activation="relu")),
    "volume, valid": ((5, 6, 7), lambda k: k.layers.Conv3D(6, (1, 2, 3))),
    "volume, norm": ((5, 6, 7), lambda k: k.layers.BatchNormalization()),
    "volume, maxima": ((5, 6, 7), lambda k: k.layers.MaxPooling3D(2)),
    "volume, means": ((5, 6, 7), lambda k: k.layers.AveragePooling3D(2)),
    "volume, transposed": ((5, 6, 7), lambda k: k.layers.Conv3DTranspose(3, 2, 2)),
}


@pytest.mark.parametrize("name", OTHER_AXES)
def test_a_layer_of_signals_or_volumes_gives_what_keras_gives(keras: Any, name: str) -> None:
    sides, layer = OTHER_AXES[name]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((*sides, 4)), layer(keras), keras.layers.Flatten()])
    draw_statistics(model)
    inputs = torch.randn(3, 4, *sides)
    network = plain_network(model).eval()
    assert network.declared_shape == (4, *sides)
    assert close(network(inputs), model(inputs.movedim(1, -1), training=False), 2e-5)
    assert sum(one.numel() for one in (*network.parameters(), *network.buffers())) == model.count_params()


@pytest.mark.parametrize("axes", [1, 3])
def test_networks_of_signals_and_volumes_are_mined_and_projected(keras: Any, axes: int) -> None:
    side, layers = {1: 32, 3: 8}[axes], keras.layers
    network = keras.Sequential([
        keras.Input((side,) * axes + (2,)),
        getattr(layers, f"Conv{axes}D")(4, 3, padding="same", activation="relu", name="first"),
        getattr(layers, f"MaxPooling{axes}D")(2),
        getattr(layers, f"Conv{axes}D")(6, 3, activation="relu", name="second"),
        getattr(layers, f"GlobalAveragePooling{axes}D")(),
        layers.Dense(3, name="classes"),
    ])  # fmt: skip
    model = interpret.load(network)
    fields = {name: layer.receptive_field for name, layer in interpret.trace(model).items()}
    assert fields["first"].size == (3,) * axes and fields["second"].size == (8,) * axes
    inputs = torch.rand(4, 2, *(side,) * axes)
    mined = interpret.mine(model, inputs, k=2)
    assert list(mined) == ["first", "second", "classes"]
    maps = network.get_layer("second")(network.layers[1](network.layers[0](inputs.movedim(1, -1))))
    strongest = maps.detach().flatten(1, -2).amax(1)  # [B, units]
    assert torch.allclose(
        torch.as_tensor(mined["second"].values)[:, 0].clamp(min=0), strongest.amax(0).cpu(), atol=1e-5
    )
    found = interpret.project(model, inputs[:1], "second", 0, rule="gradient")
    assert found.pixels.shape == (1, 2, *(8,) * axes) and found.pixels.abs().max() > 0


def test_the_size_of_a_strided_layer_follows_from_its_padding(keras: Any) -> None:
    conv = keras.layers.Conv2D(6, 5, 2, padding="same", name="conv")
    network = interpret.load(keras.Sequential([keras.Input((28, 27, 1)), conv]))
    summary = interpret.summarise(network)
    assert "(28 − 5 + 3)/2 + 1 = 14; (27 − 5 + 4)/2 + 1 = 14" in summary and "5 × 5" in summary


def branches(keras: Any) -> Any:
    """Return a model with a shared layer, a nested model, arithmetic and two outputs."""
    layers = keras.layers
    inner = keras.Sequential(
        [keras.Input((None, None, 6)), layers.Conv2D(6, 3, padding="same", name="deep")], name="inner"
    )
    shared = layers.Conv2D(6, 3, padding="same", activation="relu", name="shared")
    images = keras.Input((16, 16, 6), name="images")
    left, right = shared(images), shared(images * 2 + 1)
    both = layers.Concatenate(name="both")([left, inner(right), inner(left)])
    means = layers.GlobalAveragePooling2D(name="means")(both)
    classes = layers.Dense(3, activation="softmax", name="classes")(means)
    return keras.Model(images, {"classes": classes, "maps": layers.Activation("tanh", name="maps")(both)})


def test_layers_have_keras_names_and_outputs_channels_first(keras: Any) -> None:
    model = branches(keras)
    images = torch.randn(2, 6, 16, 16)
    network = plain_network(model).eval()
    found, expected = network(images), model(MapLayout(True).channels_last(images), training=False)
    assert close(found["classes"], expected["classes"])
    assert close(found["maps"], MapLayout(True).channels_first(expected["maps"]))
    inner = keras.Model(model.inputs, [model.get_layer(name).output for name in ("both", "means")])
    both, means = inner(MapLayout(True).channels_last(images))
    outputs = interpret.layer_outputs(network, images, ["shared", "shared_relu", "inner.deep", "both", "means"])
    assert close(outputs["both"], MapLayout(True).channels_first(both)) and close(outputs["means"], means)
    assert close(outputs["shared"].relu(), outputs["shared_relu"]) and (outputs["shared"] < 0).any()
    assert close(outputs["shared_relu"], outputs["both"][:, :6])
    assert list(interpret.mine(network, images)) == ["shared", "inner.deep", "classes"]


def test_memory_is_freed_as_layers_run(keras: Any) -> None:
    network = plain_network(branches(keras))
    assert isinstance(network, KerasGraph)
    kept = {place for step in network._steps for place in step.outputs} - {
        place for step in network._steps for place in step.last_used
    }
    assert len(kept) == 2  # the outputs


def test_channels_first_in_keras(keras: Any) -> None:
    conv = keras.layers.Conv2D(5, 3, 2, padding="same", data_format="channels_first", name="conv")
    norm, pool = keras.layers.BatchNormalization(axis=1), keras.layers.MaxPooling2D(2, data_format="channels_first")
    model = keras.Sequential(
        [keras.Input((3, 12, 10)), conv, norm, pool, keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    draw_statistics(model)
    images = torch.randn(2, 3, 12, 10)
    network = interpret.load(model)
    assert network.input_shape == (3, 12, 10)
    assert close(network(images), model(images, training=False))
    assert interpret.trace(network)["conv"].output_shape == (5, 6, 5)


def test_augmentation_is_left_out_as_in_keras(keras: Any) -> None:
    """Such layers are recorded as called with training=True, which Keras overrides when it predicts."""
    layers = keras.layers
    image = keras.Input((12, 12, 3))
    maps = layers.RandomContrast(0.5)(layers.RandomZoom(0.3)(layers.RandomRotation(0.2)(layers.RandomFlip()(image))))
    inside = [keras.Input((12, 12, 3)), layers.Conv2D(4, 3, name="conv"), layers.Dropout(0.5)]
    base = keras.Sequential(inside, name="base")
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(base(maps, training=False))))
    images = torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        assert close(interpret.load(model)(images), model(MapLayout(True).channels_last(images), training=False))
    assert interpret.mine(model, images, k=1)["base.conv"].values.shape == (4, 1)


def test_group_normalisation_is_one_operation_for_the_rules(keras: Any) -> None:
    layers = keras.layers
    conv, norm = layers.Conv2D(4, 3, name="conv"), layers.GroupNormalization(2, name="norm")
    model = keras.Sequential([keras.Input((9, 9, 3)), conv, norm, layers.ReLU()])
    draw_statistics(model)
    network = plain_network(model).eval()
    image = torch.rand(1, 3, 9, 9, requires_grad=True)
    with interpret.BackwardRule(network, "deconvnet", strict=True):
        output = network(image)
    (found,) = torch.autograd.grad(output[0, 1, 3, 3], image)
    conv, norm = network.get_submodule("conv"), network.get_submodule("norm")
    deviation = conv(image)[0, :2].std(correction=0)
    scale = (norm.weight[1] / (deviation**2 + norm.eps).sqrt()).detach()
    expected = torch.zeros_like(found)
    expected[0, :, 3:6, 3:6] = scale * conv.weight[1].detach()
    assert close(found, expected)


@pytest.mark.parametrize("known", [True, False])
def test_a_model_that_is_a_class(keras: Any, known: bool) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="own")
            self.stem = keras.layers.Conv2D(4, 3, name="stem")
            self.block = residual_block(keras)(4, name="block")
            self.head = keras.layers.Dense(2, name="head")

        def call(self, images: Any, training: bool = False) -> Any:
            maps = self.block(self.stem(images))
            return self.head(keras.ops.mean(maps, (1, 2)) if known else torch.mean(maps, (1, 2)))

    model = Own()
    with pytest.raises(InterpretError, match="model 'own' has no weights yet: run it once on an image"):
        interpret.load(model)
    images = torch.randn(2, 3, 9, 9)
    expected = model(MapLayout(True).channels_last(images))
    nodes = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    if not known:
        with pytest.raises(InterpretError, match=r"model 'own' is a class whose .* cannot be followed as a graph"):
            interpret.load(model)
    else:
        network = interpret.load(model)
        assert close(network(images), expected)
        names = [
            "stem",
            "block.conv1",
            "block.conv1_relu",
            "block.conv2",
            "block.add",
            "block.relu",
            "block",
            "mean",
            "head",
        ]
        assert list(interpret.trace(network, (3, 9, 9))) == names
    assert [len(layer._inbound_nodes) for layer in model._flatten_layers()] == nodes


def test_several_inputs(keras: Any) -> None:
    left, right = keras.Input((12, 12, 3), name="left"), keras.Input((4,), name="right")
    maps = keras.layers.Conv2D(5, 3, activation="relu", name="conv")(left)
    gate = keras.layers.Reshape((1, 1, 5))(keras.layers.Dense(5, name="gate")(right))
    flat = keras.layers.Flatten()(keras.layers.Multiply()([maps, gate]))
    model = keras.Model([left, right], keras.layers.Dense(2, name="out")(flat))
    images, numbers = torch.rand(6, 3, 12, 12), torch.rand(6, 4)
    network = plain_network(model)
    expected = model([MapLayout(True).channels_last(images), numbers])
    assert close(network(images, numbers), expected) and close(network(left=images, right=numbers), expected)
    assert set(interpret.mine(model, {"left": images, "right": numbers})) == {"conv", "gate", "out"}
    with pytest.raises(InterpretError, match=r"the network takes 2 inputs \(left, right\), not 1"):
        interpret.mine(model, images)


def test_a_layer_alone_is_refused(keras: Any) -> None:
    with pytest.raises(InterpretError, match="is a layer of Keras: make it a model"):
        interpret.load(keras.layers.Conv2D(3, 3, name="alone"))


def test_the_network_in_hand_is_not_changed(keras: Any) -> None:
    model = branches(keras)
    model = keras.Model(model.inputs, model.output["classes"])
    before = [variable.value.clone() for variable in model.variables]
    tensors = [variable.value for variable in model.variables]
    images = torch.randn(4, 6, 16, 16)
    interpret.mine(model, images)
    interpret.probe(model, images, "translation", values=[0, 2])
    interpret.project(model, images, "shared", channels=2)
    for variable, value, tensor in zip(model.variables, before, tensors, strict=True):
        assert variable.value is tensor and torch.equal(tensor, value)
    # it shares the memory: weights that are trained on are seen
    network = interpret.load(model)
    model.get_layer("shared").kernel.assign(torch.zeros(3, 3, 6, 6))
    assert not network.module.get_submodule("shared").weight.any()


def test_another_backend_is_refused(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3)], name="there")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    sentence = (
        "model 'there' needs Keras on its torch backend, and Keras was imported with 'jax': set .*KERAS_BACKEND=torch"
    )
    for analysis in (interpret.load, interpret.trace, lambda model: interpret.mine(model, torch.rand(2, 1, 8, 8))):
        with pytest.raises(InterpretError, match=sentence):
            analysis(model)


# ---- keras.applications ----------------------------------------------------------------------------------------------

SMALL = """MobileNet MobileNetV2 MobileNetV3Small EfficientNetB0 EfficientNetV2B0 ConvNeXtTiny Xception ResNet50V2
    VGG16""".split()
# not EfficientNetV2 S to L, which with random statistics amplify rounding until no digit is left
LARGER = """InceptionV3 InceptionResNetV2 DenseNet121 ResNet50 MobileNetV3Large EfficientNetB1 EfficientNetB2
    EfficientNetB3 EfficientNetB4 EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetV2B1 EfficientNetV2B2
    EfficientNetV2B3  DenseNet169 DenseNet201 ConvNeXtSmall
    ConvNeXtBase ConvNeXtLarge ConvNeXtXLarge ResNet101 ResNet152 ResNet101V2 ResNet152V2 VGG19""".split()


def macs_of(model: Any) -> int:
    """Count multiply-accumulates from Keras's shapes: each weight of a kernel at each position."""
    total = 0
    for layer in model._flatten_layers(include_self=False):
        kernels = [getattr(layer, name, None) for name in ("kernel", "depthwise_kernel", "pointwise_kernel")]
        if any(kernel is not None for kernel in kernels):
            positions = math.prod(layer.output.shape[1:-1])
            total += positions * sum(math.prod(kernel.shape) for kernel in kernels if kernel is not None)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, *LARGER] if LARGE else SMALL)
def test_the_networks_of_keras_applications(keras: Any, name: str) -> None:
    side = 64 if LARGE or name != "VGG16" else 32
    side = max(side, 75 if name.startswith(("Inception", "Xception")) else 0)
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(side, side, 3), classifier_activation=None)
    draw_statistics(model)
    network = interpret.load(model)
    images = torch.rand(2, 3, side, side) * 255
    with torch.no_grad():
        found, expected = network(images), model(MapLayout(True).channels_last(images), training=False)
    assert close(found, expected, 1e-4)  # in float32, through hundreds of layers
    layers = interpret.trace(network)
    assert layers.params == sum(math.prod(variable.shape) for variable in model.trainable_weights)
    assert layers.params + sum(one.numel() for one in network.module.buffers()) == model.count_params()
    assert layers.macs == macs_of(model) and not layers.uncounted
    named = {layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)}
    assert named <= set(layers)


def give_conv(layer: Any, module: nn.Conv2d) -> None:
    values = [module.weight.detach().permute(2, 3, 1, 0)]
    if layer.use_bias:
        values.append(torch.zeros(module.out_channels) if module.bias is None else module.bias.detach())
    layer.set_weights([value.numpy() for value in values])


def give_norm(layer: Any, module: nn.BatchNorm2d) -> None:
    tensors = (module.weight, module.bias, module.running_mean, module.running_var)
    layer.set_weights([tensor.detach().numpy() for tensor in tensors])
    module.eps = layer.epsilon


def vgg16(keras: Any) -> tuple[Any, nn.Module, dict[str, str]]:
    """Return VGG-16 in Keras and torchvision, with the same weights, and torchvision's names by Keras's."""
    torch.manual_seed(0)
    module = models.vgg16(weights=None).features.eval()
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 64, 3))
    theirs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    ours = [name for name, layer in module.named_children() if isinstance(layer, nn.Conv2d)]
    for layer, name in zip(theirs, ours, strict=True):
        give_conv(layer, module.get_submodule(name))
    return model, module, {layer.name: name for layer, name in zip(theirs, ours, strict=True)}


def resnet50(keras: Any) -> tuple[Any, nn.Module, dict[str, str]]:
    """Return ResNet-50 in Keras and torchvision, made equal.

    Keras strides in the first convolution of a block, torchvision in the second; Keras's constant in normalisations is
    1.001e-5; its convolutions have biases, here zero; and it pads with zeros before max-pooling, where torchvision pads
    with minus infinity: the same values, but a switch may point to the padding if a window is zero.
    """
    torch.manual_seed(0)
    module = models.resnet50(weights=None, num_classes=10).eval()
    model = keras.applications.ResNet50(weights=None, classes=10, input_shape=(64, 64, 3))
    module.maxpool = nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, 2))
    names = {"conv1_conv": "conv1"}
    give_conv(model.get_layer("conv1_conv"), module.conv1)
    give_norm(model.get_layer("conv1_bn"), module.bn1)
    for stage in range(1, 5):
        for number, block in enumerate(module.get_submodule(f"layer{stage}")):
            theirs, ours = f"conv{stage + 1}_block{number + 1}", f"layer{stage}.{number}"
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
            pairs = [(f"{theirs}_{n}", getattr(block, f"conv{n}"), getattr(block, f"bn{n}")) for n in (1, 2, 3)]
            names |= {f"{theirs}_{n}_conv": f"{ours}.conv{n}" for n in (1, 2, 3)}
            if block.downsample is not None:
                pairs.append((f"{theirs}_0", *block.downsample))
                names[f"{theirs}_0_conv"] = f"{ours}.downsample.0"
            for name, conv, norm in pairs:
                norm.running_mean.normal_(std=0.1)
                norm.running_var.uniform_(0.5, 1.5)
                give_conv(model.get_layer(f"{name}_conv"), conv)
                give_norm(model.get_layer(f"{name}_bn"), norm)
    values = [module.fc.weight.detach().t().numpy(), module.fc.bias.detach().numpy()]
    model.get_layer("predictions").set_weights(values)
    return model, module, names | {"predictions": "fc"}


@pytest.mark.slow
@pytest.mark.parametrize("build", [vgg16, resnet50])
def test_the_same_network_of_torchvision_gives_the_same_hits_and_projections(keras: Any, build: Any) -> None:
    model, module, names = build(keras)
    images = torch.rand(6, 3, 64, 64) * 2 - 1
    found, expected = interpret.mine(model, images, k=3), interpret.mine(module, images, k=3)
    assert sorted(names) == sorted(found)
    for theirs, ours in names.items():
        assert np.allclose(found[theirs].values, expected[ours].values, rtol=1e-3, atol=1e-4), theirs
        same = found[theirs].images == expected[ours].images
        if found[theirs].positions is not None and theirs != "predictions":
            same &= (found[theirs].positions == expected[ours].positions).all(-1)
        assert same.mean() > 0.995, theirs  # values may be equal but for rounding
    fields, others = interpret.trace(model), interpret.trace(module, (3, 64, 64))
    for theirs, ours in list(names.items())[::8]:
        assert (fields[theirs].receptive_field, fields[theirs].macs) == (
            others[ours].receptive_field,
            others[ours].macs,
        )
        for rule in ("deconvnet", "guided"):
            one = interpret.project(model, images[:3], theirs, channels=3, rule=rule)
            two = interpret.project(module, images[:3], ours, channels=3, rule=rule)
            assert np.array_equal(one.boxes, two.boxes) and close(one.pixels, two.pixels, 1e-3), (theirs, rule)


def test_tensors_are_turned_back() -> None:
    images: Tensor = torch.randn(2, 3, 4, 5)
    assert torch.equal(MapLayout(True).channels_first(MapLayout(True).channels_last(images)), images)
    assert MapLayout(True).channels_last(images).shape == (2, 4, 5, 3)
