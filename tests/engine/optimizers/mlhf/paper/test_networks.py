"""The coordinatewise network: every form equals the reference, and that equals torch's LSTM."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.optimizers.learned.kinds import segments
from mlhf.optimizers.mlhf.kernels import library
from mlhf.optimizers.mlhf.kernels.choose import Choice
from mlhf.optimizers.mlhf.paper import reference
from mlhf.optimizers.mlhf.paper.networks import CoordinateNetwork
from mlhf.optimizers.mlhf.paper.weights import NetworkWeights
from tests.engine.optimizers.mlhf.conftest import loud
from tests.waiting import DEADLINE

# Runs that are and are not whole vector registers, and one kind twice.
SEGMENTS = segments([(100, 0), (17, 1), (301, 2), (5, 3), (32, 4), (33, 5), (1, 2)])
N = SEGMENTS[-1].end


def _inputs(steps, dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)
    scales = torch.logspace(-4, 1, N)  # from tiny to saturated
    return [
        [(torch.randn(N, generator=generator) * scales).to(dtype) for _ in range(3)]
        for _ in range(steps)
    ]


def test_reference_is_torchs_lstm_of_each_kind():
    weights = loud(3, torch.float64)
    state = torch.zeros(16, N, dtype=torch.float64)
    cells = {}
    for k in {s.kind for s in SEGMENTS}:
        first, second = nn.LSTMCell(3, 4).double(), nn.LSTMCell(4, 4).double()
        layers = (first, weights.w1[k], weights.b1[k]), (second, weights.w2[k], weights.b2[k])
        for cell, w, b in layers:
            inputs = cell.input_size
            state_dict = {"weight_ih": w[:, :inputs], "weight_hh": w[:, inputs:]}
            cell.load_state_dict({**state_dict, "bias_ih": b, "bias_hh": 0 * b})
        cells[k] = (first, second)
    theirs = {i: [None, None] for i in range(len(SEGMENTS))}
    with torch.no_grad():
        for inputs in _inputs(5, torch.float64):
            out, state = reference.network(inputs, state, weights, SEGMENTS)
            for i, segment in enumerate(SEGMENTS):
                x = torch.stack([v[segment.start : segment.end] for v in inputs], 1)
                first, second = cells[segment.kind]
                theirs[i][0] = first(x, theirs[i][0])
                theirs[i][1] = second(theirs[i][0][0], theirs[i][1])
                expected = theirs[i][1][0] @ weights.w3[segment.kind] + weights.b3[segment.kind]
                assert torch.allclose(out[segment.start : segment.end], expected, atol=1e-12)


@pytest.mark.parametrize("path", ["cpp", "torch"])
def test_fast_forms_equal_the_reference_over_50_steps(path):
    weights, exact = loud(1), loud(1, torch.float64)
    network = CoordinateNetwork(weights, SEGMENTS, _or_skip(path))
    state = torch.zeros(16, N)
    expected = state.double()
    with torch.no_grad():
        for inputs in _inputs(50):
            out = network.step(inputs, state, 0.25)
            squashed = [torch.tanh(v.double()) for v in inputs]
            y, expected = reference.network(squashed, expected, exact, SEGMENTS)
            assert (out - F.softplus(y) - 0.25).abs().max() < 1e-5
            assert (state - expected).abs().max() < 1e-5


@pytest.mark.parametrize("path", ["cpp", "torch"])
def test_gradients_equal_the_references(path):
    def backward(weights, network, dtype):
        state = weights.initial_state(torch.zeros(N, dtype=dtype))
        generator = torch.Generator().manual_seed(2)
        loss, leaves = torch.zeros((), dtype=dtype), []
        for inputs in _inputs(4, dtype):
            leaves += [v.requires_grad_() for v in inputs]
            out, state = network(inputs, state)
            loss = loss + (out * torch.randn(N, generator=generator).to(dtype)).sum()
        loss = loss + (state * torch.randn(16, N, generator=generator).to(dtype)).sum()
        return torch.autograd.grad(loss, [*weights.parameters(), *leaves])

    weights, exact = loud(1), loud(1, torch.float64)
    mine = backward(weights, CoordinateNetwork(weights, SEGMENTS, _or_skip(path)), torch.float32)

    def plain(inputs, state):
        y, state = reference.network([torch.tanh(v) for v in inputs], state, exact, SEGMENTS)
        return F.softplus(y), state

    theirs = backward(exact, plain, torch.float64)
    for a, b in zip(mine, theirs, strict=True):
        assert (a - b).abs().max() < 1e-5 * max(1, b.abs().max())


def test_threads_change_no_bit():
    n = 300_007
    pieces = segments([(200_001, 0), (n - 200_001, 2)])
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(n, generator=generator) for _ in range(3)]
    weights = loud(1)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out, state = CoordinateNetwork(weights, pieces, _or_skip("cpp"))(
                inputs, weights.initial_state(inputs[0])
            )
            gradients = torch.autograd.grad(out.sum() + state.sum(), list(weights.parameters()))
            found.append([out, state, *gradients])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_what_is_not_finite_shows():
    _or_skip("cpp")
    for path in ("cpp", "torch"):
        network = CoordinateNetwork(loud(1), SEGMENTS, path)
        inputs = [v.clone() for v in _inputs(1)[0]]
        inputs[0][3] = float("nan")
        out = network.step(inputs, torch.zeros(16, N))
        assert bool(out[3].isnan())
        assert int(out.isnan().sum()) == 1


def test_extreme_outputs_stay_positive_and_right():
    weights = loud(1)
    for bias in (-60.0, -20.0, 0.0, 20.0, 200.0):
        with torch.no_grad():
            weights.w3.zero_()
            weights.b3.fill_(bias)
        out = CoordinateNetwork(weights, SEGMENTS, _or_skip("cpp")).step(
            _inputs(1)[0], torch.zeros(16, N)
        )
        expected = F.softplus(torch.tensor(bias, dtype=torch.float64))
        assert torch.allclose(out.double(), expected.expand(N), rtol=3e-6)


def test_without_a_compiler_plain_torch_runs_and_says_why(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(library, "BUILT_AHEAD", tmp_path)
    library.obstacle.cache_clear()
    try:
        choice = CoordinateNetwork(loud(1), SEGMENTS).choice(torch.zeros(1))
        assert choice.path == "torch"
        assert "no-such-compiler" in choice.reason
        with pytest.raises(RuntimeError, match="no-such-compiler"):
            CoordinateNetwork(loud(1), SEGMENTS, "cpp").choice(torch.zeros(1))
    finally:
        library.obstacle.cache_clear()


def test_other_precisions_and_sizes_take_plain_torch():
    assert CoordinateNetwork(loud(1), SEGMENTS).choice(torch.zeros(1).double()).path == "torch"
    small = NetworkWeights(1, 2, 20)
    assert CoordinateNetwork(small, segments([(9, 0)])).choice(torch.zeros(1)).path == "torch"


@pytest.mark.parametrize("path", ["torch", "auto"])
def test_a_first_input_of_nan_keeps_the_state(path):
    """So a step that is not finite leaves it, without waiting for the device."""
    network, state = CoordinateNetwork(loud(1), SEGMENTS, path), torch.zeros(16, N)
    for inputs in _inputs(3):
        network.step(inputs, state)
    before = state.clone()
    out = network.step([torch.full((N,), torch.nan), *inputs[1:]], state)
    assert torch.equal(state, before)
    assert out.isnan().all()


def test_triton_kernel_in_its_interpreter():
    pytest.importorskip("triton")
    code = """
import torch
from mlhf.optimizers.mlhf.kernels import triton_kernel
from mlhf.optimizers.learned.kinds import segments
from mlhf.optimizers.mlhf.paper.networks import CoordinateNetwork
from mlhf.optimizers.mlhf.paper.weights import NetworkWeights
pieces = segments([(300, 0), (17, 2), (5, 3)])
weights = NetworkWeights(seed=1)
plain = CoordinateNetwork(weights, pieces, "torch")
mine, theirs, out = torch.zeros(16, 322), torch.zeros(16, 322), torch.empty(322)
for _ in range(50):
    inputs = [2 * torch.randn(322) for _ in range(3)]
    triton_kernel.forward(inputs, mine, weights.packed().detach(), pieces, 0.1, mine, out)
    assert (plain.step(inputs, theirs, 0.1) - out).abs().max() < 1e-5
    assert (theirs - mine).abs().max() < 1e-5
before, nan = mine.clone(), torch.full((322,), torch.nan)
triton_kernel.forward([nan, *inputs[1:]], mine, weights.packed().detach(), pieces, 0.1, mine, out)
assert torch.equal(mine, before) and out.isnan().all()
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=DEADLINE)


def test_the_triton_kernel_compiles_for_a_gpu_that_is_not_there():
    """The interpreter takes Python that the compiler refuses."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mlhf.optimizers.mlhf.kernels.triton_kernel import _BLOCK, _network

    types = {"BLOCK": "constexpr", "offset": "fp32"} | dict.fromkeys(("n", "start", "end"), "i32")
    signature = {name: types.get(name, "*fp32") for name in _network.arg_names}
    source = ASTSource(_network, signature, {"BLOCK": _BLOCK})
    assert "ptx" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm


@pytest.mark.gpu
def test_triton_kernel_on_the_gpu():
    pytest.importorskip("triton")
    weights, exact = loud(1).cuda(), loud(1)
    network, plain = (
        CoordinateNetwork(w, SEGMENTS, path) for w, path in ((weights, "auto"), (exact, "torch"))
    )
    mine, theirs = torch.zeros(16, N, device="cuda"), torch.zeros(16, N)
    assert mine.dtype == torch.float32
    assert network.choice(mine) == Choice("triton")
    for inputs in _inputs(50):
        out = network.step([v.cuda() for v in inputs], mine)
        assert (out.cpu() - plain.step(inputs, theirs)).abs().max() < 1e-5
        assert (mine.cpu() - theirs).abs().max() < 1e-5


def _or_skip(path):
    if path == "cpp" and library.obstacle():
        pytest.skip(library.obstacle())
    return path
