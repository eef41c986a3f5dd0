"""Multiply-accumulates of every operation that has them, by the literal formula, or named as not counted."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import DeformConv2d, roi_align

import interpret
from interpret.tracing.macs import MacCounter

T, B, N, H = 5, 3, 8, 6
SEQUENCE = torch.rand(T, B, N)


def count(call: Callable[..., Any], *inputs: Tensor) -> tuple[int, list[str]]:
    with torch.inference_mode(False), torch.no_grad(), MacCounter() as counter:
        call(*inputs)
    return counter.total, counter.uncounted


def recurrent(gates: int, layers: int = 1, directions: int = 1, projected: int | None = None) -> int:
    """Sum over steps, images, layers and directions: each gate's weights for the input and for the state before."""
    out, total = projected or H, 0
    for layer in range(layers):
        width = N if layer == 0 else directions * out
        for _ in range(directions):
            total += T * B * (gates * H * width + gates * H * out + (H * out if projected else 0))
    return total


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.LSTM(N, H), recurrent(4)),
        (nn.LSTM(N, H, num_layers=2, bidirectional=True), recurrent(4, 2, 2)),
        (nn.LSTM(N, H, proj_size=2, num_layers=2), recurrent(4, 2, projected=2)),
        (nn.GRU(N, H, bidirectional=True), recurrent(3, 1, 2)),
        (nn.GRU(N, H, num_layers=3, batch_first=True), recurrent(3, 3)),
        (nn.RNN(N, H, num_layers=2), recurrent(1, 2)),
        (nn.RNN(N, H, nonlinearity="relu"), recurrent(1)),
    ],
)
def test_recurrent_layers(layer: nn.Module, macs: int, device: str) -> None:
    assert count(deepcopy(layer).eval().to(device), SEQUENCE.to(device)) == (macs, [])


IMAGE = torch.rand(2, 3, 9, 9)
ENCODER = nn.TransformerEncoderLayer(N, 2, dim_feedforward=7, batch_first=True).eval()
ATTENTION = nn.MultiheadAttention(N, 2, batch_first=True).eval()
# [5, 3, 8]: five images of three positions, eight numbers wide
ATTENDED = T * B * (3 * N * N + N * N) + T * B * B * 2 * N


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("call", "inputs", "macs"),
    [
        (nn.LSTMCell(N, H), [SEQUENCE[0]], B * 4 * H * (N + H)),
        (nn.GRUCell(N, H), [SEQUENCE[0]], B * 3 * H * (N + H)),
        (nn.Bilinear(N, 7, 4), [SEQUENCE, torch.rand(T, B, 7)], T * B * 4 * N * 7),
        (ATTENTION, [SEQUENCE] * 3, ATTENDED),
        (ENCODER, [SEQUENCE], ATTENDED + T * B * 2 * N * 7),
        (nn.functional.scaled_dot_product_attention, [torch.rand(2, 4, 5, 8), torch.rand(2, 4, 6, 8),
            torch.rand(2, 4, 6, 8)], 2 * 4 * 5 * 6 * 16),
        (lambda x, y: torch.einsum("tbi,ji->tbj", x, y), [SEQUENCE, torch.rand(7, N)], T * B * N * 7),
        (lambda x: torch.einsum("tbi,tci->tbc", x, x), [SEQUENCE], T * B * B * N),
        (lambda x: torch.bmm(x, x.mT), [SEQUENCE], T * B * B * N),
        (lambda x: torch.addbmm(torch.zeros(B, B, device=x.device), x, x.mT), [SEQUENCE], T * B * B * N),
        (lambda x: x[0].new_zeros(B, B).addmm_(x[0], x[0].T), [SEQUENCE], B * B * N),
        (lambda x: x[0] @ x[0, 0], [SEQUENCE], B * N),
        (lambda x: x[0, 0] @ x[0, 0], [SEQUENCE], N),
        (lambda x: torch.addmv(x[0, :, 0], x[0], x[0, 0]), [SEQUENCE], B * N),
        (lambda x: torch.tensordot(x, x, dims=([1, 2], [1, 2])), [SEQUENCE], T * T * B * N),
        (DeformConv2d(3, 4, (3, 2)), [IMAGE, torch.rand(2, 12, 7, 8)], 2 * 7 * 8 * 4 * 3 * 6),
        (nn.ConvTranspose2d(3, 4, 3, stride=2), [IMAGE], 2 * 9 * 9 * 3 * 4 * 9),
        (nn.Conv1d(8, 6, 3, groups=2), [torch.rand(2, 8, 10)], 2 * 8 * 6 * 4 * 3),
        (nn.Conv3d(1, 2, 2), [torch.rand(1, 1, 3, 3, 3)], 8 * 2 * 8),
        (nn.EmbeddingBag(9, 4), [torch.ones(2, 3, dtype=torch.long)], 0),
        (lambda i, w: nn.functional.embedding_bag(i, torch.rand(9, 4, device=i.device), mode="sum",
            per_sample_weights=w), [torch.ones(2, 3, dtype=torch.long), torch.rand(2, 3)], 2 * 3 * 4),
        (lambda x: nn.functional.interpolate(x, scale_factor=2, mode="bilinear"), [IMAGE], 0),
        (nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.BatchNorm2d(3), nn.Softmax(1), nn.GELU()).eval(), [IMAGE], 0),
        (lambda x: x.norm() + torch.linalg.vector_norm(x), [IMAGE], 0),
        (lambda x: roi_align(x, [torch.ones(1, 4, device=x.device)] * 2, 2), [IMAGE], 0),
    ],
)  # fmt: skip
def test_by_the_literal_formula(call: Any, inputs: list[Tensor], macs: int, device: str) -> None:
    call = deepcopy(call).to(device) if isinstance(call, nn.Module) else call
    assert count(call, *(one.to(device) for one in inputs)) == (macs, [])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda x: torch.fft.irfft2(torch.fft.rfft2(x)), ["fft_r2c", "fft_c2r"]),
        (lambda x: torch.fft.fft(x), ["fft_r2c"]),
        (lambda x: torch.cdist(x[0], x[1]), ["cdist_forward"]),
        (lambda x: torch.linalg.inv(torch.eye(3) + 0 * x[0, 0, :3, :3]), ["linalg_inv_ex"]),
        (lambda x: torch.linalg.svdvals(x[0, 0]), ["linalg_svd"]),
        (lambda x: torch.sparse.mm(torch.eye(9).to_sparse(), x[0, 0]), ["sparse_addmm"]),
        (lambda x: torch.ops.aten.conv_tbc(x[0], torch.rand(2, 9, 4), torch.rand(4)), ["conv_tbc"]),
    ],
)
def test_what_is_not_counted_is_named(call: Any, named: list[str]) -> None:
    total, uncounted = count(call, IMAGE)
    assert list(dict.fromkeys(uncounted)) == named and total == 0


def test_operations_of_other_libraries_are_named() -> None:
    @torch.library.custom_op("interpret_test::mystery", mutates_args=())
    def mystery(x: Tensor) -> Tensor:
        return x * 2

    assert count(mystery, IMAGE) == (0, ["mystery"])


class Filtering(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[-2:])


class Lines(nn.Module):
    """A recurrent head on the rows of feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.filter = nn.Sequential(Filtering())
        self.lstm = nn.LSTM(24, 5, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(self.filter(self.conv(x)).transpose(1, 2).flatten(2))[0]


def test_a_trace_and_a_summary_say_what_is_missing() -> None:
    traced = interpret.trace(Lines().eval(), (1, 8, 8))
    assert traced.macs == 36 * 4 * 9 + 6 * 2 * (4 * 5 * 24 + 4 * 5 * 5)
    assert traced.uncounted == ["fft_r2c in 'filter.0'", "fft_c2r in 'filter.0'"]
    said = "Not counted in MACs: fft_r2c in 'filter.0', fft_c2r in 'filter.0'"
    assert interpret.summarise(Lines().eval(), (1, 8, 8)).endswith(f"\n\n{said}")
    assert interpret.trace(nn.Conv2d(1, 4, 3), (1, 8, 8)).uncounted == []


@pytest.mark.parametrize(
    ("call", "inputs"),
    [
        (nn.Conv2d(3, 8, 5, stride=2), [IMAGE]),
        (nn.Conv2d(3, 6, 3, groups=3), [IMAGE]),
        (nn.ConvTranspose2d(3, 8, 3, stride=2), [IMAGE]),
        (nn.Linear(N, H), [SEQUENCE]),
        (torch.bmm, [torch.rand(2, 3, 4), torch.rand(2, 4, 5)]),
        (torch.baddbmm, [torch.rand(2, 3, 5), torch.rand(2, 3, 4), torch.rand(2, 4, 5)]),
    ],
)
def test_torch_counts_twice_as_many_operations(call: Callable[..., Any], inputs: list[Tensor]) -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(*inputs)
    assert counter.get_total_flops() > 0
    assert count(call, *inputs) == (counter.get_total_flops() // 2, [])
