"""Preprocessing: equal to torchvision's, invertible, and at home with every kind of picture."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features
from torchvision import transforms as v1
from torchvision.models import get_model_weights
from torchvision.transforms import v2

import interpret
from helpers.files import noise
from interpret.figures.contrast import stretch_contrast
from interpret.images.folder import read_picture, read_size
from interpret.loading.torchvision_timm import torchvision_source
from interpret.network.model import Model
from interpret.network.pixel_scale import find_pixel_scale
from interpret.network.preprocess import Cut, Preprocess, upright
from interpret.support.errors import InterpretError

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SQUEEZENET = Preprocess((227, 227), "BGR", 255, mean=(103.939, 116.779, 123.68), resize=256)


def gradient(height: int, width: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows % 256, columns % 256, (rows + columns) % 256], 2).astype(np.uint8))


# ---- torchvision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "inception_v3", "efficientnet_b0", "efficientnet_v2_s"])
@pytest.mark.parametrize("size", [(480, 640), (301, 200), (100, 99), (1000, 260), (256, 256)])
def test_equals_torchvisions_transform_bit_for_bit(name: str, size: tuple[int, int]) -> None:
    transform = get_model_weights(name).DEFAULT.transforms()
    preprocess = torchvision_source(name).preprocess
    assert preprocess is not None
    picture = noise(*size)
    torch.testing.assert_close(preprocess(picture), transform(picture), rtol=0, atol=0)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(20, 400), width=st.integers(20, 400))
def test_equals_torchvisions_transform_for_any_shape(height: int, width: int) -> None:
    transform = get_model_weights("resnet18").DEFAULT.transforms()
    picture = noise(height, width)
    assert torch.equal(Preprocess((224, 224), resize=256, **IMAGENET)(picture), transform(picture))


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.mark.parametrize("size", [(480, 640), (301, 200), (100, 99), (1000, 260)])
@pytest.mark.parametrize(
    "steps",
    [
        [v1.Resize(256), v1.CenterCrop(224), v1.ToTensor(), v1.Normalize(MEAN, STD)],
        [v1.Resize(64, v1.InterpolationMode.BICUBIC), v1.CenterCrop((32, 48)), v1.ToTensor()],
        [v1.Resize((32, 48)), v1.ToTensor(), v1.Normalize(MEAN, STD)],
        [v1.Resize((32, 32), v1.InterpolationMode.LANCZOS), v1.CenterCrop(32), v1.PILToTensor(),
            v1.ConvertImageDtype(torch.float32), v1.Normalize((0.5,), (0.25,))],
        [v2.RGB(), v2.Resize(40), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD), v2.ToPureTensor()],
        [v2.Resize(40), v2.CenterCrop(32), v2.PILToTensor(), v2.ToDtype(torch.float32),
            v2.Normalize([104, 117, 124], [1, 2, 3])],
        [v1.Compose([v1.Resize([40]), v1.CenterCrop(32)]), v1.ToTensor()],
        [v1.Resize(40, v1.InterpolationMode.NEAREST), v1.CenterCrop(40), v1.ToTensor()],
    ],
)  # fmt: skip
def test_a_transform_of_torchvision_is_read_to_the_bit(steps: list, size: tuple[int, int]) -> None:
    transform = v2.Compose(steps) if isinstance(steps[-1], v2.Transform) else v1.Compose(steps)
    preprocess = Preprocess.from_torchvision(transform, channels="RGB")
    # the second version multiplies by 1 / 255 instead of dividing by 255
    last_bit = 1e-6 if any(isinstance(step, v2.ToDtype) and step.scale for step in steps) else 0
    for picture in (noise(*size), gradient(*size)):
        torch.testing.assert_close(preprocess(picture), transform(picture), rtol=0, atol=last_bit)


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "mobilenet_v3_small", "swin_t"])
def test_what_weights_bring_along_is_read_to_the_bit(name: str) -> None:
    transform = get_model_weights(name).DEFAULT.transforms()
    assert torch.equal(Preprocess.from_torchvision(transform)(noise(300, 400)), transform(noise(300, 400)))


@pytest.mark.parametrize(("crop_mode", "crop_pct"), [("center", 0.9), ("squash", 1.0)])
def test_a_transform_that_timm_makes_is_read_to_the_bit(crop_mode: str, crop_pct: float) -> None:
    from timm.data import create_transform

    transform = create_transform((3, 96, 96), crop_pct=crop_pct, crop_mode=crop_mode, interpolation="bicubic")
    assert torch.equal(Preprocess.from_torchvision(transform)(noise(300, 400)), transform(noise(300, 400)))


def test_grey_and_pictures_of_the_inputs_size() -> None:
    digits = v1.Compose([v1.ToTensor(), v1.Normalize((0.1307,), (0.3081,))])
    picture = noise(28, 28).convert("L")
    preprocess = Preprocess.from_torchvision(digits, size=(28, 28), channels="L")
    assert preprocess.input_shape == (1, 28, 28) and torch.equal(preprocess(picture), digits(picture))
    grey = v1.Compose([v1.Grayscale(), v1.Resize(40), v1.CenterCrop(32), v1.ToTensor()])
    preprocess = Preprocess.from_torchvision(grey)
    assert torch.equal(preprocess(noise(60, 50).convert("L")), grey(noise(60, 50).convert("L")))
    # colour that becomes grey before it is resized differs by that rounding
    assert (preprocess(noise(60, 50)) - grey(noise(60, 50))).abs().max() <= 1.01 / 255


@pytest.mark.parametrize("order", ["uint8", "float"])
def test_resizing_numbers_differs_by_its_rounding(order: str) -> None:
    to_float, resize = v2.ToDtype(torch.float32, scale=True), v2.Resize(40, antialias=True)
    steps = [resize, to_float] if order == "uint8" else [to_float, resize]
    transform = v2.Compose([v2.ToImage(), *steps, v2.CenterCrop(32)])
    for picture in (noise(300, 200), gradient(120, 99), noise(30, 31)):
        found = Preprocess.from_torchvision(transform, channels="RGB")(picture)
        assert (found - transform(picture)).abs().max() <= 2.01 / 255


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (v1.Compose([v1.RandomResizedCrop(32), v1.ToTensor()]), "transform RandomResizedCrop .* it is random"),
        (v2.Compose([v2.ColorJitter(), v2.ToImage()]), "transform ColorJitter .*: it is random"),
        (v1.Compose([v1.Lambda(lambda x: x), v1.ToTensor()]), "transform Lambda .* only Resize, CenterCrop"),
        (lambda picture: picture, "transform <lambda> cannot become"),
        (v1.Compose([v1.Resize(40), v1.CenterCrop(32)]), "does not end in floating point: add ToTensor"),
        (v1.Compose([v1.Resize(40), v1.ToTensor()]), "transform Resize .* no fixed size: add CenterCrop"),
        (v1.Compose([v1.CenterCrop(40), v1.ToTensor()]), "transform CenterCrop .* no Resize before it"),
        (v1.Compose([v1.Resize(32), v1.CenterCrop(40), v1.ToTensor()]), "it pads 32 pixels with black to 40"),
        (v1.Compose([v1.Resize((40, 40)), v1.CenterCrop(32), v1.ToTensor()]), r"it cuts \(32, 32\) out of \(40, 40\)"),
        (v1.Compose([v1.Resize(40, max_size=50), v1.CenterCrop(32), v1.ToTensor()]), "max_size limits the long side"),
        (v1.Compose([v1.ToTensor(), v1.Resize(40, antialias=False), v1.CenterCrop(32)]), "put it before ToTensor"),
        (v1.Compose([v1.ToTensor(), v1.Resize(40, v1.InterpolationMode.BICUBIC), v1.CenterCrop(32)]), "floating point"),
        (v1.Compose([v1.ToTensor(), v1.Normalize(MEAN, STD)]), r"does not resize: give size=\(height, width\)"),
        (v1.Compose([v1.Resize((32, 32)), v1.ToTensor()]), "takes both grey and colour: give channels='L' or"),
        (v1.Compose([v1.Resize((32, 32)), v1.PILToTensor(), v1.ConvertImageDtype(torch.float64)]), "torch.float64"),
        (v1.Compose([v1.Resize((8, 8)), v1.ToTensor(), v1.Normalize(MEAN, STD), v1.GaussianBlur(3)]), "Normalize"),
        (v1.Compose([v1.Resize((8, 8)), v1.FiveCrop(4), v1.ToTensor()]), "transform FiveCrop cannot become"),
    ],
)  # fmt: skip
def test_transforms_that_no_preprocessing_can_express_are_named(transform: object, words: str) -> None:
    with pytest.raises(InterpretError, match=words):
        Preprocess.from_torchvision(transform)


def test_values_are_those_of_the_formula() -> None:
    picture = Image.new("RGB", (300, 300), (10, 20, 30))
    expected = torch.tensor([30 - 103.939, 20 - 116.779, 10 - 123.68])
    torch.testing.assert_close(SQUEEZENET(picture)[:, 0, 0], expected)
    values = Preprocess((8, 8), **IMAGENET)(picture)[:, 0, 0]
    torch.testing.assert_close(values, (torch.tensor([10, 20, 30]) / 255 - torch.tensor([0.485, 0.456, 0.406]))
                               / torch.tensor([0.229, 0.224, 0.225]))  # fmt: skip


# ---- geometry -------------------------------------------------------------------------------------------------------


def test_without_resize_the_picture_just_covers_the_input() -> None:
    preprocess = Preprocess((20, 40))
    assert preprocess.central(100, 100) == Cut(height=40, width=40, top=10, left=0)
    assert preprocess.central(20, 40) == Cut(20, 40, 0, 0)
    assert preprocess.central(10, 400) == Cut(20, 800, 0, 380)


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    picture=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    resize=st.none() | st.integers(1, 80),
    rule=st.sampled_from(["crop", "squash", "pad"]),
)
def test_central_part_covers_the_input_and_lies_in_the_middle(size, picture, resize, rule) -> None:
    preprocess = Preprocess(size, resize=resize if rule == "crop" else None, rule=rule)
    cut = preprocess.central(*picture)
    for have, want, start in ((cut.height, size[0], cut.top), (cut.width, size[1], cut.left)):
        assert abs(start - (have - want) / 2) <= 0.5
        assert have >= want if rule != "pad" else have <= want
    if rule == "pad":
        assert cut.height == size[0] or cut.width == size[1]
    if rule == "squash":
        assert cut == Cut(*size, 0, 0)


def test_squash_takes_the_whole_picture() -> None:
    preprocess = Preprocess((10, 10), rule="squash")
    picture = gradient(40, 90)
    expected = np.array(picture.resize((10, 10), Image.Resampling.BILINEAR))
    assert np.array_equal(preprocess.cut(picture, preprocess.central(40, 90)), expected)


@pytest.mark.parametrize("channels", ["RGB", "BGR", "L"])
def test_padding_is_as_near_to_zero_as_a_pixel_can_be(channels: str) -> None:
    count = len(channels)
    preprocess = Preprocess(
        (10, 20), channels, 255, mean=(104.0, 117.0, 123.0)[:count], std=(50.0,) * count, rule="pad"
    )
    image = preprocess(Image.new("RGB", (10, 10), "white"))
    assert image[:, :, :5].abs().max() < 0.5 / 50 and image[:, :, 15:].abs().max() < 0.5 / 50
    assert torch.equal(image[:, :, 5:15], preprocess.encode(np.full((10, 10), 255, np.uint8)))


@pytest.mark.parametrize("shape", [(3, 3000), (3000, 3)])
def test_part_of_a_long_strip_is_that_of_the_whole(shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    preprocess = Preprocess((64, 64))
    small = preprocess.central(*shape)
    assert small.fits_in_memory
    whole = preprocess.cut(picture, small)
    factor = 3
    cut = Cut(small.height * factor, small.width * factor, 40, 70) if shape[0] < 10 else Cut(
        small.height * factor, small.width * factor, 70, 40)  # fmt: skip
    assert whole.shape == (64, 64, 3)
    expected = preprocess.cut(picture, cut).astype(int)

    class Huge(Cut):
        fits_in_memory = False  # type: ignore[assignment]

    found = preprocess.cut(picture, Huge(*cut)).astype(int)
    assert abs(found - expected).max() <= 2
    outside = preprocess.cut(picture, Huge(*cut._replace(top=-5, left=-9))).astype(int)
    assert abs(outside - preprocess.cut(picture, cut._replace(top=-5, left=-9)).astype(int)).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1)])
def test_pictures_of_one_pixel_and_of_one_line(shape: tuple[int, int]) -> None:
    picture = Image.new("RGB", shape[::-1], (255, 0, 0))
    image = SQUEEZENET.display(SQUEEZENET(picture))
    assert image.shape == (3, 227, 227)
    torch.testing.assert_close(image[:, 100, 100], torch.tensor([1.0, 0.0, 0.0]))


def test_shrinking_is_antialiased() -> None:
    board = Image.fromarray((np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8))
    grey = Preprocess((32, 32), "L")(board)
    assert (grey - 0.5).abs().max() < 0.02
    aliased = Preprocess((32, 32), "L", interpolation="nearest")(board)
    assert set(aliased.unique().tolist()) <= {0.0, 1.0}


# ---- there and back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preprocess",
    [SQUEEZENET, Preprocess((5, 5), **IMAGENET), Preprocess((5, 5), range=255, mean=(127,) * 3, std=(128,) * 3)],
)
def test_display_inverts_encode(preprocess: Preprocess) -> None:
    pixels = np.array(noise(40, 30))
    shown = preprocess.display(preprocess.encode(pixels))
    assert np.array_equal((shown * 255).round().byte().permute(1, 2, 0).numpy(), pixels)


def test_display_of_grey_and_of_batches() -> None:
    preprocess = Preprocess((4, 4), "L", mean=(0.1307,), std=(0.3081,))
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    shown = preprocess.display(preprocess.encode(pixels).double()[None, None])
    assert shown.shape == (1, 1, 3, 16, 16) and shown.dtype == torch.float64
    assert all(np.array_equal((plane * 255).round().byte().numpy(), pixels) for plane in shown[0, 0])


def test_display_is_clipped() -> None:
    preprocess = Preprocess((1, 1), **IMAGENET)
    assert preprocess.display(torch.full((3, 1, 1), 99.0)).unique().tolist() == [1.0]
    assert preprocess.display(torch.full((3, 1, 1), -99.0)).unique().tolist() == [0.0]


def test_grey_and_colour_turn_into_each_other() -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert torch.equal(Preprocess((4, 4)).encode(grey), Preprocess((4, 4)).encode(np.stack([grey] * 3, 2)))
    assert torch.equal(Preprocess((4, 4), "L").encode(np.stack([grey] * 3, 2)), Preprocess((4, 4), "L").encode(grey))
    luma = Preprocess((1, 1), "L", 255).encode(np.uint8([[[255, 0, 0]]]))
    assert luma.item() == 76  # 0.299 · 255


def test_dictionary_survives_json() -> None:
    for preprocess in (SQUEEZENET, Preprocess((1, 3), "L", mean=(1 / 3,), rule="pad", interpolation="lanczos")):
        assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


# ---- every kind of picture ------------------------------------------------------------------------------------------


def saved(picture: Image.Image, kind: str, **options: object) -> Image.Image:
    """The picture as it comes back from a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return Image.open(file)


def corner(picture: Image.Image) -> tuple[int, ...]:
    shown = upright(picture)
    assert shown.mode == "RGB"
    return shown.getpixel((0, 0))


def half_transparent_palette() -> Image.Image:
    picture = Image.new("P", (2, 2), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 1), 2)
    return saved(picture, "PNG", transparency=2)


KINDS = {
    "grey": (lambda: Image.new("L", (2, 2), 7), (7, 7, 7)),
    "one bit": (lambda: saved(Image.new("1", (2, 2), 1), "PNG"), (255, 255, 255)),
    "grey with alpha": (lambda: Image.new("LA", (2, 2), (0, 51)), (204, 204, 204)),
    "RGBA, opaque": (lambda: Image.new("RGBA", (2, 2), (1, 2, 3, 255)), (1, 2, 3)),
    "RGBA, invisible": (lambda: Image.new("RGBA", (2, 2), (1, 2, 3, 0)), (255, 255, 255)),
    "premultiplied": (lambda: Image.new("RGBA", (2, 2), (255, 0, 0, 128)).convert("RGBa"), (255, 127, 127)),
    "RGB with a transparent colour": (
        lambda: saved(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
        (255, 255, 255),
    ),
    "palette": (lambda: noise(2, 2).quantize(4), None),
    "palette with transparency": (half_transparent_palette, (255, 0, 0)),
    "CMYK": (lambda: Image.new("CMYK", (2, 2), (0, 255, 255, 0)), (255, 0, 0)),
    "CMYK JPEG": (lambda: saved(Image.new("CMYK", (16, 16), (255, 255, 255, 255)), "JPEG"), (0, 0, 0)),
    "YCbCr": (lambda: Image.new("RGB", (2, 2), (255, 255, 255)).convert("YCbCr"), (255, 255, 255)),
    "HSV": (lambda: Image.new("RGB", (2, 2), (255, 0, 0)).convert("HSV"), (255, 0, 0)),
    "16 bits, white": (lambda: saved(Image.fromarray(np.full((2, 2), 65535, np.uint16)), "PNG"), (255, 255, 255)),
    "16 bits, middle": (lambda: saved(Image.fromarray(np.full((2, 2), 128 * 257, np.uint16)), "PNG"), (128,) * 3),
    "16 bits, dark": (lambda: saved(Image.fromarray(np.full((2, 2), 257, np.uint16)), "TIFF"), (1, 1, 1)),
    "16 bits, big-endian": (lambda: Image.frombytes("I;16B", (1, 1), b"\x80\x80"), (128, 128, 128)),
    "32 bits, in the range of 16": (lambda: Image.new("I", (2, 2), 65535), (255, 255, 255)),
    "32 bits": (lambda: Image.fromarray(np.array([[70000, -30000]], np.int32)), (255, 255, 255)),
    "float to 1": (lambda: saved(Image.fromarray(np.float32([[0.2, 1]])), "TIFF"), (51, 51, 51)),
    "float to 255": (lambda: saved(Image.fromarray(np.float32([[128, 0]])), "TIFF"), (128, 128, 128)),
    "float to 65535": (lambda: saved(Image.fromarray(np.float32([[65535, 0]])), "TIFF"), (255, 255, 255)),
    "float of any range": (lambda: saved(Image.fromarray(np.float32([[-3, 7]])), "TIFF"), (0, 0, 0)),
    "float, NaN": (lambda: Image.fromarray(np.float32([[np.nan, 1]])), (0, 0, 0)),
    "animated GIF": (
        lambda: saved(
            Image.new("RGB", (2, 2), (255, 0, 0)), "GIF", save_all=True, append_images=[Image.new("RGB", (2, 2))]
        ),
        (255, 0, 0),
    ),
    "animated WebP": (
        lambda: saved(
            Image.new("RGB", (2, 2), "white"), "WEBP", save_all=True, append_images=[Image.new("RGB", (2, 2))],
            lossless=True,
        ),
        (255, 255, 255),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_becomes_an_input(kind: str) -> None:
    make, expected = KINDS[kind]
    if expected is not None:
        assert corner(make()) == expected
    for preprocess in (SQUEEZENET, Preprocess((28, 28), "L")):
        image = preprocess(make())
        assert image.shape == preprocess.input_shape and image.isfinite().all()


def test_no_level_of_16_bits_is_clipped_or_wraps() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    shown = np.array(upright(saved(Image.fromarray(levels), "PNG")))[..., 0]
    assert np.array_equal(shown, np.rint(levels / 257).astype(np.uint8))


@pytest.mark.parametrize("file", ["a.png", "a.tif", "a.jpg", "a.webp", "a.avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, file, tmp_path) -> None:
    picture = gradient(30, 20)
    # how a camera stores it, undone by what the standard says of each value
    steps = {
        1: [], 2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
    }[orientation]  # fmt: skip
    stored = picture
    for step in steps:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if file.endswith("avif") and not features.check("avif"):
        pytest.skip("needs a Pillow that writes AVIF")
    stored.save(tmp_path / file, exif=exif)
    found = np.array(read_picture(tmp_path, file))
    with Image.open(tmp_path / file) as opened:
        assert np.array_equal(found, np.array(ImageOps.exif_transpose(opened).convert("RGB")))
    if file in ("a.png", "a.tif"):
        assert np.array_equal(found, np.array(picture))
    assert read_size(tmp_path, file) == found.shape[:2] == (30, 20)


def test_damaged_exif_leaves_the_picture_as_it_lies(tmp_path) -> None:
    gradient(30, 20).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert read_picture(tmp_path, "a.jpg").size == (20, 30)
    assert read_size(tmp_path, "a.jpg") == (30, 20)


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": (0, 4)}, "at least 1×1, not 0×4"),
        ({"size": 4}, r"size=\(height, width\)"),
        ({"size": (4, 4, 4)}, r"size=\(height, width\)"),
        ({"mean": ("a",)}, "numbers for mean"),
        ({"mean": (1, 2)}, "needs 3 means and deviations for channels='RGB', not 2 and 3"),
        ({"channels": "L", "std": (1, 1, 1)}, "needs 1 means"),
        ({"channels": "RBG"}, "unknown Preprocess channels 'RBG'.*'RGB'"),
        ({"rule": "stretch"}, "unknown Preprocess rule 'stretch'"),
        ({"interpolation": "bilinaer"}, "did you mean 'bilinear'"),
        ({"std": (1, 0, 1)}, "std and range must be above 0"),
        ({"range": 0}, "std and range must be above 0"),
        ({"resize": 0}, "resize=0"),
        ({"resize": 9, "rule": "pad"}, "with rule='crop' only"),
    ],
)
def test_fields_out_of_range(fields: dict, words: str) -> None:
    with pytest.raises(InterpretError, match=words):
        Preprocess(**{"size": (4, 4), **fields})


def test_other_mistakes() -> None:
    with pytest.raises(InterpretError, match="unknown Preprocess field 'sise': did you mean 'size'"):
        Preprocess.from_dict({"sise": [1, 1]})
    with pytest.raises(InterpretError, match="needs size"):
        Preprocess.from_dict({"channels": "L"})
    with pytest.raises(InterpretError, match=r"uint8 .* not float64 \[2, 2\]"):
        Preprocess((2, 2)).encode(np.zeros((2, 2)))
    with pytest.raises(InterpretError, match=r"must be \[\.\.\., 3, H, W\].*not \[1, 2, 2\]"):
        Preprocess((2, 2)).display(torch.zeros(1, 2, 2))


def test_bands_of_multispectral_inputs_are_those_that_are_shown() -> None:
    images = torch.rand(2, 7, 9, 9, dtype=torch.float64)
    mean, std = tuple(range(7)), tuple(range(1, 8))
    preprocess = Preprocess((9, 9), bands=(6, 3, 0), mean=mean, std=std)
    assert preprocess.input_shape == (7, 9, 9) and Preprocess.from_dict(preprocess.to_dict()) == preprocess
    values = (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    torch.testing.assert_close(preprocess.display(values), images[:, [6, 3, 0]])
    network = torch.nn.Sequential(torch.nn.Conv2d(7, 2, 3)).double()
    found = interpret.project(Model(network, "one", preprocess), values, "0", 0)
    top, left, bottom, right = found.boxes[1].tolist()
    expected = (images[1][[6, 3, 0], top:bottom, left:right] * 255).round().permute(1, 2, 0)
    assert np.abs(found.pictures[1].astype(int) - expected.numpy()).max() <= 1  # float32
    assert found.shown == "Of 7 channels, numbers 6, 3 and 0 are shown as red, green and blue."
    # without a setting, the first three
    plain = find_pixel_scale(list(images))
    torch.testing.assert_close(plain.display(images), images[:, :3])
    assert plain.said.endswith("Of 7 channels, numbers 0, 1 and 2 are shown as red, green and blue.")
    np.testing.assert_array_equal(
        stretch_contrast(values.numpy(), preprocess.colours), stretch_contrast(values[:, [6, 3, 0]].numpy(), "RGB")
    )
    assert "bands" not in Preprocess((9, 9)).to_dict()  # part of the fingerprints of earlier studies


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, r"bands=\(2, 1, 0\) need one mean and deviation for each of at least four channels"),
        ({"mean": (0,) * 2}, "at least four channels"),
        ({"mean": (0,) * 5, "bands": (2, 1)}, "three channels from 0 to 4, not"),
        ({"mean": (0,) * 5, "bands": (2, 1, 5)}, "three channels from 0 to 4, not"),
    ],
)
def test_bands_that_are_none_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InterpretError, match=message):
        Preprocess((4, 4), **({"bands": (2, 1, 0)} | given))
    with pytest.raises(InterpretError, match="are not made from pictures"):
        Preprocess((4, 4), bands=(2, 1, 0), mean=(0.0,) * 5).encode(np.zeros((4, 4, 3), np.uint8))
