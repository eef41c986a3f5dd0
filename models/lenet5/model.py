"""LeNet-5 as published in 1998.

Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86(11), 1998: section II.B, figure 2, table I and appendix A.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Table I: the maps of S2 (rows) that each map of C3 (columns) combines.
TABLE_I = """
X . . . X X X . . X X X X . X X
X X . . . X X X . . X X X X . X
X X X . . . X X X . . X . X X X
. X X X . . X X X X . . X . X X
. . X X X . . X X X X . X X . X
. . . X X X . . X X X X . X X X
"""

# The codes of the ten classes: stylised digits of 7 × 12 pixels, +1 for ink and -1 for background, redrawn in the
# style of figure 3.
DIGITS = """
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
..###.. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.##.##. ..###.. ##...## ##...## ...###. ##..... .##.... .....## ##...## ##...##
##...## .####.. .....## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## .##.##. ##..... ##..... ....##. .##.##. ##...##
##...## ...##.. ....##. ..####. ##..##. ######. ######. ....##. .#####. ##...##
##...## ...##.. ...##.. .....## ##..##. .....## ##...## ...##.. ##...## .######
##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ....##. ##...## ##...## ..##... ##...## ....##.
..###.. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""


def connections() -> Tensor:
    """Return Table I as bool [16, 6]: whether a map of C3 sees a map of S2."""
    rows = [[cell == "X" for cell in line.split()] for line in TABLE_I.strip().splitlines()]
    return torch.tensor(rows).T.contiguous()


def digit_codes() -> Tensor:
    """Return the codes of the ten digits as ±1 [10, 84], row by row from the top."""
    lines = [line.split() for line in DIGITS.strip().splitlines()]
    bitmaps = ["".join(line[digit] for line in lines) for digit in range(10)]
    return torch.tensor([[1.0 if pixel == "#" else -1.0 for pixel in bitmap] for bitmap in bitmaps])


class Squash(nn.Module):
    """The scaled hyperbolic tangent f(a) = 1.7159 tanh(2a/3), with f(1) = 1 and f(-1) = -1 (appendix A)."""

    def forward(self, sums: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(sums * (2 / 3))


class Subsampling(nn.Module):
    """Sum each 2 × 2 square, times a trainable gain, plus a trainable bias, one of each per map."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(maps, 1, 1))
        self.bias = nn.Parameter(torch.zeros(maps, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps, 2, divisor_override=1) * self.gain + self.bias


class TableConv2d(nn.Conv2d):
    """A convolution with a kernel only where a table connects an input map to an output map.

    `kernels` holds the trainable kernels in the table's order; `weight` is the dense tensor, with zeros where there is
    no connection.
    """

    def __init__(self, table: Tensor, kernel_size: int) -> None:
        super().__init__(table.shape[1], table.shape[0], kernel_size)
        del self.weight  # replaced by the property below
        self.kernels = nn.Parameter(torch.empty(int(table.sum()), *self.kernel_size))
        self.register_buffer("table", table, persistent=False)

    @property
    def weight(self) -> Tensor:
        dense = self.kernels.new_zeros(self.out_channels, self.in_channels, *self.kernel_size)
        return dense.index_put((self.table,), self.kernels)


class RadialBasis(nn.Module):
    """Minus the squared Euclidean distance to the fixed code of each class: the nearest code has the largest output."""

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        return -(features.unsqueeze(1) - self.codes).square().sum(2)


class LeNet5(nn.Sequential):
    """The network of figure 2; its submodules have the figure's names."""

    def __init__(self) -> None:
        super().__init__()
        # centres the 28 × 28 digit in the paper's 32 × 32 field; -0.1 is the background
        self.input = nn.ConstantPad2d(2, -0.1)
        self.c1 = nn.Conv2d(1, 6, 5)
        self.squash1 = Squash()
        self.s2 = Subsampling(6)
        self.squash2 = Squash()
        self.c3 = TableConv2d(connections(), 5)
        self.squash3 = Squash()
        self.s4 = Subsampling(16)
        self.squash4 = Squash()
        self.c5 = nn.Conv2d(16, 120, 5)
        self.squash5 = Squash()
        self.flatten = nn.Flatten()
        self.f6 = nn.Linear(120, 84)
        self.squash6 = Squash()
        self.output = RadialBasis(digit_codes())
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw every weight and bias uniformly from ±2.4 / fan-in of its unit (appendix A)."""
        for layer in (self.c1, self.c5, self.f6):
            _draw([layer.weight, layer.bias], layer.weight[0].numel())
        for layer in (self.s2, self.s4):
            _draw([layer.gain, layer.bias], 4)
        inputs_of_map = 25 * self.c3.table.sum(1)
        inputs_of_kernel = inputs_of_map.repeat_interleave(self.c3.table.sum(1))
        for parameter, inputs in [(self.c3.kernels, inputs_of_kernel), (self.c3.bias, inputs_of_map)]:
            for unit, count in zip(parameter, inputs.tolist(), strict=True):
                _draw([unit], count)


def _draw(parameters: list[Tensor], inputs: int) -> None:
    for parameter in parameters:
        parameter.uniform_(-2.4 / inputs, 2.4 / inputs)


def build() -> nn.Module:
    """Return LeNet-5 with random weights: [B, 1, 28, 28] to [B, 10]."""
    return LeNet5()
