"""The same network as one Triton kernel, for CUDA. Imported only where Triton is installed.

A program does one block of coordinates of one kind. The weights of a kind are scalars to it;
the loops over units are unrolled when it is compiled. Jitted functions have no annotations:
Triton reads them as code, and refuses names that are not its own.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from mlhf.optimizers.learned.kinds import Segment

_BLOCK = 256


@triton.jit
def _tanh(x):
    # By exp of a number <= 0, which neither overflows nor loses large x.
    e = tl.exp(-2.0 * tl.abs(x))
    t = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -t, t)


@triton.jit
def _sigmoid(x):
    return 0.5 + 0.5 * _tanh(0.5 * x)


@triton.jit
def _gates(w, bias, unit, in0, in1, in2, in3, in4, in5, in6, in7, COLS: tl.constexpr):
    row = w + unit * COLS
    z = tl.load(bias + unit) + tl.load(row) * in0 + tl.load(row + 1) * in1
    z += tl.load(row + 2) * in2 + tl.load(row + 3) * in3 + tl.load(row + 4) * in4
    z += tl.load(row + 5) * in5 + tl.load(row + 6) * in6
    if COLS == 8:
        z += tl.load(row + 7) * in7
    return z


@triton.jit
def _unit(w, bias, unit, c, in0, in1, in2, in3, in4, in5, in6, in7, COLS: tl.constexpr):
    i = _gates(w, bias, unit, in0, in1, in2, in3, in4, in5, in6, in7, COLS)
    f = _gates(w, bias, 4 + unit, in0, in1, in2, in3, in4, in5, in6, in7, COLS)
    g = _gates(w, bias, 8 + unit, in0, in1, in2, in3, in4, in5, in6, in7, COLS)
    o = _gates(w, bias, 12 + unit, in0, in1, in2, in3, in4, in5, in6, in7, COLS)
    c = _sigmoid(f) * c + _sigmoid(i) * _tanh(g)
    return _sigmoid(o) * _tanh(c), c


@triton.jit
def _network(
    a,
    b,
    c,
    state_in,
    state_out,
    out,
    packed,
    n,
    start,
    end,
    offset,
    BLOCK: tl.constexpr,
):
    # 64 bits from here on: the state's 16 rows of n pass 2³¹ elements at 134 M coordinates.
    block = tl.program_id(0).to(tl.int64)
    at = block * BLOCK + start + tl.arange(0, BLOCK)
    n = block * 0 + n
    ok = at < end
    w1, b1, w2, b2, w3, b3 = (
        packed,
        packed + 112,
        packed + 128,
        packed + 256,
        packed + 272,
        packed + 276,
    )
    x0 = _tanh(tl.load(a + at, ok, 0.0))
    x1 = _tanh(tl.load(b + at, ok, 0.0))
    x2 = _tanh(tl.load(c + at, ok, 0.0))
    s = state_in + at
    h0, h1 = tl.load(s, ok, 0.0), tl.load(s + n, ok, 0.0)
    h2, h3 = tl.load(s + 2 * n, ok, 0.0), tl.load(s + 3 * n, ok, 0.0)
    c0, c1 = tl.load(s + 4 * n, ok, 0.0), tl.load(s + 5 * n, ok, 0.0)
    c2, c3 = tl.load(s + 6 * n, ok, 0.0), tl.load(s + 7 * n, ok, 0.0)
    p0, c0 = _unit(w1, b1, 0, c0, x0, x1, x2, h0, h1, h2, h3, h3, 7)
    p1, c1 = _unit(w1, b1, 1, c1, x0, x1, x2, h0, h1, h2, h3, h3, 7)
    p2, c2 = _unit(w1, b1, 2, c2, x0, x1, x2, h0, h1, h2, h3, h3, 7)
    p3, c3 = _unit(w1, b1, 3, c3, x0, x1, x2, h0, h1, h2, h3, h3, 7)
    h0, h1 = tl.load(s + 8 * n, ok, 0.0), tl.load(s + 9 * n, ok, 0.0)
    h2, h3 = tl.load(s + 10 * n, ok, 0.0), tl.load(s + 11 * n, ok, 0.0)
    d0, d1 = tl.load(s + 12 * n, ok, 0.0), tl.load(s + 13 * n, ok, 0.0)
    d2, d3 = tl.load(s + 14 * n, ok, 0.0), tl.load(s + 15 * n, ok, 0.0)
    q0, d0 = _unit(w2, b2, 0, d0, p0, p1, p2, p3, h0, h1, h2, h3, 8)
    q1, d1 = _unit(w2, b2, 1, d1, p0, p1, p2, p3, h0, h1, h2, h3, 8)
    q2, d2 = _unit(w2, b2, 2, d2, p0, p1, p2, p3, h0, h1, h2, h3, 8)
    q3, d3 = _unit(w2, b2, 3, d3, p0, p1, p2, p3, h0, h1, h2, h3, 8)
    y = tl.load(b3) + tl.load(w3) * q0 + tl.load(w3 + 1) * q1
    y += tl.load(w3 + 2) * q2 + tl.load(w3 + 3) * q3
    # softplus, with log(1 + e) by 2 artanh(e / (2 + e)): small e stay exact
    e = tl.exp(-tl.abs(y))
    u = e / (2.0 + e)
    t = u * u
    series = 1.0 + t * (
        1.0 / 3
        + t
        * (
            1.0 / 5
            + t * (1.0 / 7 + t * (1.0 / 9 + t * (1.0 / 11 + t * (1.0 / 13 + t * (1.0 / 15)))))
        )
    )
    tl.store(out + at, tl.where(y > 0, y, 0.0) + 2.0 * u * series + offset, ok)
    s = state_out + at
    first = tl.load(a + 0 * at, ok, 0.0)
    ok = ok & (first == first)  # NaN there: a step that is not finite leaves the state
    tl.store(s, p0, ok)
    tl.store(s + n, p1, ok)
    tl.store(s + 2 * n, p2, ok)
    tl.store(s + 3 * n, p3, ok)
    tl.store(s + 4 * n, c0, ok)
    tl.store(s + 5 * n, c1, ok)
    tl.store(s + 6 * n, c2, ok)
    tl.store(s + 7 * n, c3, ok)
    tl.store(s + 8 * n, q0, ok)
    tl.store(s + 9 * n, q1, ok)
    tl.store(s + 10 * n, q2, ok)
    tl.store(s + 11 * n, q3, ok)
    tl.store(s + 12 * n, d0, ok)
    tl.store(s + 13 * n, d1, ok)
    tl.store(s + 14 * n, d2, ok)
    tl.store(s + 15 * n, d3, ok)


def forward(
    inputs: Sequence[Tensor],
    state: Tensor,
    packed: Tensor,
    segments: Sequence[Segment],
    offset: float,
    state_out: Tensor,
    out: Tensor,
) -> None:
    """As ``operators.network_step``, on CUDA tensors; ``state_out`` may be ``state``."""
    n = out.numel()
    with torch.cuda.device_of(out):  # a kernel is launched on the current device
        for part in segments:
            grid = (triton.cdiv(part.end - part.start, _BLOCK),)
            where = n, part.start, part.end, offset
            _network[grid](*inputs, state, state_out, out, packed[part.kind], *where, BLOCK=_BLOCK)
