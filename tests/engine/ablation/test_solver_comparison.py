"""What the ablation measures, against dense algebra in NumPy and against MLHF itself."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mlhf.ablation.config import SOLVER_VARIANTS, SolverVariant
from mlhf.ablation.solver_comparison import SolverComparison, quality
from mlhf.curvature.pcg import pcg
from mlhf.optimizers.mlhf.paper.optimizer import PaperMLHF

_NONE = SolverVariant("none", "learned", "none", 3)


def _batches(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(16, 5, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (16,), generator=generator),
        )
        for _ in range(count)
    ]


def _model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def test_quality_by_hand():
    # Â = diag(2, 4), b = (2, 4): one plain iteration from 0 has α = ⟨b,b⟩/⟨b,Âb⟩ = 20/72,
    # so d = (5/9, 10/9), r = b − Âd = (8/9, −4/9), ⟨d,b⟩ = 50/9, ⟨d,Âd⟩ = 50/9.
    a, b = torch.tensor([2.0, 4.0]), torch.tensor([2.0, 4.0])
    l_p, residual = quality(pcg(lambda v: a * v, b, torch.zeros(2), iterations=1))
    assert l_p.item() == pytest.approx(-((50 / 9) ** 0.5), rel=1e-6)
    assert residual.item() == pytest.approx((80 / 81) ** 0.5 / 20**0.5, rel=1e-6)


def test_l_p_of_the_exact_solution_is_the_lowest():
    # l_p is minimal at the exact solution, where it is −√(bᵀÂ⁻¹b).
    a, b = torch.tensor([1.0, 3.0, 9.0]).double(), torch.tensor([1.0, -2.0, 3.0]).double()
    exact = -np.sqrt((b * b / a).sum().item())
    values = [
        quality(pcg(lambda v: a * v, b, torch.zeros_like(b), iterations=n))[0].item()
        for n in (1, 2, 3)
    ]
    assert values[0] > values[1] > values[2] == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("learned", ["default", None])
def test_the_form_that_steps_goes_as_mlhf_does(learned):
    # RNN_s, RNN_p, warm start and step are MLHF's: after five steps so are the weights.
    measured, alone = _model(), _model()
    variants, optimizer = (
        SolverComparison(measured, "cross_entropy", learned),
        PaperMLHF(alone, "cross_entropy", learned),
    )
    for x, y in _batches(5):
        mine, theirs = variants.step(x, y), optimizer.step(x, y)
        assert mine.loss.item() == theirs.loss.item()
        torch.testing.assert_close(
            mine.stats["residual/(4) RNN_p, 4"], theirs.stats["cg_residual"], rtol=1e-9, atol=0
        )
    for a, b in zip(measured.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def _dense(model, x, y):
    """Gradient and Gauss-Newton matrix of cross-entropy, by torch.func in MLHF's order."""
    names = [n for n, _ in model.named_parameters()]
    names.sort(key=lambda n: n.endswith("bias"))  # kernels first, as the kinds are ordered
    shapes = [model.get_parameter(n).shape for n in names]
    flat = torch.cat([model.get_parameter(n).detach().reshape(-1) for n in names])

    def outputs(theta):
        parts = torch.split(theta, [s.numel() for s in shapes])
        named = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return torch.func.functional_call(model, named, (x,))

    jacobian = torch.func.jacrev(outputs)(flat).numpy()
    p = torch.softmax(outputs(flat), 1).numpy()
    targets = np.eye(3)[y.numpy()]
    gradient = np.einsum("bcn,bc->n", jacobian, p - targets) / len(x)
    middle = np.einsum("bc,cd->bcd", p, np.eye(3)) - np.einsum("bc,bd->bcd", p, p)
    return gradient, np.einsum("bcn,bcd,bdm->nm", jacobian, middle, jacobian) / len(x)


def test_hf_adams_form_against_dense_algebra_on_two_steps():
    # S = 50(1 + k/100)^½(√v̂ + 1e-5), P = 1/S, warm start 0.9 of its own last solution, at
    # the θ that another variant reached.
    model = _model()
    variant = SolverVariant("mine", "adam", "damping", 2)
    variants = SolverComparison(model, variants=(_NONE, variant), stepping="none")
    v, d = np.zeros(39), np.zeros(39)
    for k, (x, y) in enumerate(_batches(2)):
        b, g = _dense(model, x, y)
        v = 0.99 * v + 0.01 * b**2
        s = 50 * (1 + k / 100) ** 0.5 * (np.sqrt(v / (1 - 0.99 ** (k + 1))) + 1e-5)
        a = g + np.diag(s)
        d = 0.9 * d
        r = b - a @ d
        z = r / s
        p = z
        for _ in range(2):
            alpha = (r @ z) / (p @ a @ p)
            d, new = d + alpha * p, r - alpha * (a @ p)
            fresh = new / s
            p, r, z = fresh + (new @ fresh) / (r @ z) * p, new, fresh
        stats = variants.step(x, y).stats
        l_p = -(d @ b) / np.sqrt(d @ a @ d)
        assert stats["l_p/mine"].item() == pytest.approx(l_p, rel=1e-9)
        residual = np.linalg.norm(b - a @ d) / np.linalg.norm(b)
        assert stats["residual/mine"].item() == pytest.approx(residual, rel=1e-9)


def test_what_does_not_step_changes_nothing():
    alone, among = _model(), _model()
    one = SolverComparison(alone, variants=(_NONE,), stepping="none")
    many = SolverComparison(among, variants=(*SOLVER_VARIANTS, _NONE), stepping="none")
    for x, y in _batches(3):
        a, b = one.step(x, y), many.step(x, y)
        assert a.stats["l_p/none"].item() == b.stats["l_p/none"].item()
    assert all(
        torch.equal(p, q) for p, q in zip(alone.parameters(), among.parameters(), strict=True)
    )


def test_state_restores_bit_for_bit():
    model = _model()
    variants = SolverComparison(model)
    batches = _batches(4)
    for x, y in batches[:2]:
        variants.step(x, y)
    again = copy.deepcopy(model)
    other = SolverComparison(again)
    other.load_state_dict(variants.state_dict())
    for x, y in batches[2:]:
        a, b = variants.step(x, y), other.step(x, y)
        assert {k: v.item() for k, v in a.stats.items()} == {
            k: v.item() for k, v in b.stats.items()
        }


def test_only_the_learned_dampings_forms_step():
    with pytest.raises(ValueError, match="learned damping"):
        SolverComparison(_model(), stepping="hf_adam: P = 1/s, 4")
