"""Cross-correlation and convolution: the same sliding window, with the kernel as it is or rotated by 180°.

    python examples/lecture/cross_correlation.py --out figures

Deep learning's "convolution" is a cross-correlation: it applies the kernel as it is. A mathematical convolution rotates
the kernel by 180° first. The script computes both product by product and compares them with SciPy's `correlate2d` and
`convolve2d`. A hook-shaped kernel makes the difference visible: for a single bright pixel, convolution returns the hook
and cross-correlation the rotated hook.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

import interpret
from interpret.cli.answers import in_one_sentence
from interpret.figures.saving import write_figure
from interpret.figures.style import ACCENT, WIDTH, figure_grid, in_style, show

Array = NDArray[np.float64]

IMAGE = np.array([[1.1, 1.2, 1.3], [2.1, 2.2, 2.3], [3.1, 3.2, 3.3]])
KERNEL = np.array(
    [
        [0.11893535, -0.12021737, 0.2583796],
        [-0.22761738, -0.13269596, -0.02961969],
        [0.17413345, -0.3224947, -0.02875605],
    ]
)


def cross_correlate(image: Array, kernel: Array) -> Array:
    """Sum the products of kernel and window at each valid position."""
    height, width = kernel.shape
    result = np.zeros((image.shape[0] - height + 1, image.shape[1] - width + 1))
    for y, x in np.ndindex(result.shape):
        result[y, x] = (image[y : y + height, x : x + width] * kernel).sum()
    return result


def convolve(image: Array, kernel: Array) -> Array:
    """Cross-correlate with the kernel rotated by 180°."""
    return cross_correlate(image, kernel[::-1, ::-1])


def hook(side: int = 7) -> Array:
    """Return a kernel that differs from its rotation: a bar along the top and one down the left side."""
    kernel = np.zeros((side, side))
    kernel[0, :] = kernel[:, 0] = 1
    return kernel / kernel.sum()


@in_style
def draw(digit: Array, kernel: Array) -> Figure:
    figure, axes = figure_grid(4, 4, (WIDTH, 7.4))
    rotated = KERNEL[::-1, ::-1]
    rows = (
        ("cross-correlation", "kernel as it is", KERNEL, cross_correlate(IMAGE, KERNEL)),
        ("convolution", "kernel rotated by 180°", rotated, convolve(IMAGE, KERNEL)),
    )
    for row, (name, kernel_title, applied, result) in enumerate(rows):
        draw_matrix(axes[row, 0], IMAGE, "image", "{:.1f}", "Greys", (0, 8))
        draw_matrix(axes[row, 1], applied, kernel_title, "{:.3f}", "RdBu_r", (-0.6, 0.6))
        draw_matrix(axes[row, 2], IMAGE * applied, "products", "{:.3f}", "RdBu_r", (-2.2, 2.2))
        draw_matrix(axes[row, 3], result, f"sum: {name}", "{:.6f}", "RdBu_r", (-2.2, 2.2))
    # mark one corner of the kernel, so that its rotation is visible
    for row, corner in ((0, (0, 0)), (1, (2, 2))):
        axes[row, 1].add_patch(_frame(corner))
    # for a single bright pixel, cross-correlation returns the rotated kernel and convolution the kernel itself
    pixel = np.zeros((15, 15))
    pixel[7, 7] = 1
    largest = float(kernel.max())
    for row, (picture, title) in enumerate(((pixel, "one bright pixel"), (digit, "a digit")), 2):
        outputs = cross_correlate(picture, kernel), convolve(picture, kernel)
        top = max(float(output.max()) for output in outputs)
        show(axes[row, 0], picture, title, cmap="gray_r")
        show(axes[row, 1], kernel, f"{len(kernel)} × {len(kernel)} kernel", cmap="Blues", vmin=0, vmax=largest)
        for column, (output, name) in enumerate(zip(outputs, ("cross-correlation", "convolution"), strict=True), 2):
            show(axes[row, column], output, name, cmap="Blues", vmin=0, vmax=top)
    return figure


def draw_matrix(axes: Axes, values: Array, title: str, form: str, colors: str, limits: tuple[float, float]) -> None:
    """Draw a small matrix with its values."""
    show(axes, values, title, cmap=colors, vmin=limits[0], vmax=limits[1])
    size = 9 if values.size == 1 else 7
    for y, x in np.ndindex(values.shape):
        axes.text(x, y, form.format(values[y, x]).replace("-", "−"), ha="center", va="center", fontsize=size)


def _frame(corner: tuple[int, int]) -> Rectangle:
    return Rectangle((corner[1] - 0.47, corner[0] - 0.47), 0.94, 0.94, fill=False, color=ACCENT, lw=1.6)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder for cross_correlation.png")
    out = parser.parse_args(arguments).out / "cross_correlation.png"

    from scipy.signal import convolve2d, correlate2d  # only needed here

    correlation, convolution = cross_correlate(IMAGE, KERNEL), convolve(IMAGE, KERNEL)
    print(f"cross-correlation  {correlation[0, 0]:.6f}  (SciPy: {correlate2d(IMAGE, KERNEL, 'valid')[0, 0]:.6f})")
    print(f"convolution        {convolution[0, 0]:.6f}  (SciPy: {convolve2d(IMAGE, KERNEL, 'valid')[0, 0]:.6f})")

    digits = interpret.load_dataset("digits")
    digit = digits.images[np.flatnonzero(digits.labels == 2)[0]] / 255
    kernel = hook()
    write_figure(draw(digit, kernel), out)
    print(f"Open {out}")
    return {"correlation": correlation, "convolution": convolution, "digit": digit, "kernel": kernel}


if __name__ == "__main__":
    with in_one_sentence():
        main()
