"""What `plot` returns shows as a picture wherever a notebook asks for one."""

from __future__ import annotations

import pickle
from io import BytesIO
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image
from torch import nn

import interpret
from interpret.analyses.invariance.result import InvarianceCurves
from interpret.figures.style import Figure


def curves() -> InvarianceCurves:
    return InvarianceCurves(
        "scale",
        "scale (ratio)",
        1.0,
        np.array([1.0, 1.5, 2.0]),
        distances={"conv1": np.array([[0.0, 2.0, 3.0]])},
        norms={"conv1": np.array([4.0])},
    )


@pytest.mark.parametrize(
    "draw",
    [lambda: interpret.plot(curves()), lambda: interpret.plot_filters(nn.Conv2d(3, 8, 5))],
    ids=["curves", "filters"],
)
def test_a_figure_gives_a_notebook_its_picture(draw: Any) -> None:
    figure = draw()
    assert isinstance(figure, matplotlib.figure.Figure)
    data, size = figure._repr_png_()
    picture = Image.open(BytesIO(data))
    width, height = figure.get_size_inches()
    assert picture.size == (round(200 * width), round(200 * height))
    assert size == {"width": round(100 * width), "height": round(100 * height)}
    assert np.asarray(picture.convert("L")).std() > 5  # not blank


def test_a_figure_longer_than_browsers_show_gets_fewer_pixels() -> None:
    data, size = Figure(figsize=(1, 400))._repr_png_()
    assert max(Image.open(BytesIO(data)).size) <= 2**15 and size == {"width": 100, "height": 40_000}


def test_a_figure_can_be_pickled() -> None:
    figure = interpret.plot(curves())
    again = pickle.loads(pickle.dumps(figure))
    assert isinstance(again, Figure) and len(again.axes) == len(figure.axes)
