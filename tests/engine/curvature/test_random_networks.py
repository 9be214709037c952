"""Products on random networks and losses against a dense J, in float64.

60 networks by default; ``MLHF_RANDOM_NETWORKS=300`` runs as many, and ``MLHF_RANDOM_SEED`` others.
The seed of a network that fails is in the falsifying example; ``random_case(seed)`` makes it.
"""

import os

import pytest
import torch
from torch.utils import _pytree as pytree

from mlhf.curvature.ggn import GGN
from tests.engine.curvature.cases import flat, split
from tests.engine.curvature.random_networks import as_function, random_case

hypothesis = pytest.importorskip("hypothesis")
given, note, settings, start = (
    hypothesis.given,
    hypothesis.note,
    hypothesis.settings,
    hypothesis.seed,
)
HealthCheck, st = hypothesis.HealthCheck, hypothesis.strategies

_NETWORKS = int(os.environ.get("MLHF_RANDOM_NETWORKS", "60"))
_SEED = int(os.environ.get("MLHF_RANDOM_SEED", "0"))


def _dense(case, state):
    """Return J (outputs, n), H of the loss, its gradient in z, and the loss.

    Of the outputs that depend on a parameter alone, as the others are constants.
    """
    model = case.model
    parameters = [p for p in model.parameters() if p.requires_grad]
    buffers = [b.clone() for b in model.buffers()]
    was = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # as its recurrent layers are not differentiable twice
    torch.set_rng_state(state)
    z = model(case.x)
    torch._C._set_mkldnn_enabled(was)
    leaves, spec = pytree.tree_flatten(z)
    graphed = torch.cat([torch.full((t.numel(),), t.requires_grad) for t in leaves])
    outputs = torch.cat([t.reshape(-1) for t in leaves])
    rows = [
        flat([g.to_dense() for g in torch.autograd.grad(
            o, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )])
        for o in outputs[graphed]
    ]  # fmt: skip
    with torch.no_grad():
        for b, old in zip(model.buffers(), buffers, strict=True):
            b.copy_(old)

    def loss(v):
        parts = v.split([t.numel() for t in leaves])
        filled = [part.view(t.shape) for part, t in zip(parts, leaves, strict=True)]
        return as_function(case.loss)(pytree.tree_unflatten(filled, spec), case.y)

    at = outputs.detach()
    hessian = torch.autograd.functional.hessian(loss, at)
    gradient = torch.autograd.functional.jacobian(loss, at)
    return torch.stack(rows), hessian[graphed][:, graphed], gradient[graphed], loss(at)


def _assert_close(actual, expected, scale):
    error = (actual - expected).abs().max()
    assert error <= 1e-9 * scale.abs().max() + 1e-14, (error.item(), scale.abs().max().item())


@start(_SEED)
@settings(
    max_examples=_NETWORKS,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**31 - 1))
def test_products_of_random_networks_are_those_of_a_dense_jacobian(seed):
    case = random_case(seed)
    note(case.text)
    state = torch.get_rng_state()
    jacobian, hessian, gradient, loss = _dense(case, state)
    eigenvalues, vectors = torch.linalg.eigh(hessian)
    positive = (vectors * eigenvalues.clamp_min(0)) @ vectors.T
    generator = torch.Generator().manual_seed(seed)
    u, v = torch.randn(2, jacobian.shape[1], dtype=torch.float64, generator=generator)
    for indefinite, matrix in (("exact", hessian), ("positive_part", positive)):
        torch.set_rng_state(state)
        buffers = [b.clone() for b in case.model.buffers()]
        ggn = GGN(case.model, case.loss, case.x, case.y, indefinite=indefinite)
        product = flat(ggn.product(split(v, case.model)))
        expected = jacobian.T @ (matrix @ (jacobian @ v))
        size = jacobian.abs().T @ (matrix.abs() @ (jacobian.abs() @ v.abs()))
        _assert_close(ggn.loss, loss, loss)
        _assert_close(flat(ggn.gradient), jacobian.T @ gradient, jacobian.abs().T @ gradient.abs())
        _assert_close(product, expected, size)
        tangent = torch.cat([t.reshape(-1) for t in ggn.jvp(split(v, case.model))])
        _assert_close(tangent, jacobian @ v, jacobian.abs() @ v.abs())
        _assert_close(ggn.quadratic(split(v, case.model)), v @ expected, v.abs() @ size)
        _assert_close(u @ product, v @ flat(ggn.product(split(u, case.model))), u.abs() @ size)
        with torch.no_grad():
            for b, old in zip(case.model.buffers(), buffers, strict=True):
                b.copy_(old)
