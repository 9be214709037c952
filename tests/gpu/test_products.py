"""Every kind of layer's products on a GPU are those on a CPU."""

import copy

import pytest
import torch

from mlhf import GGN, Hessian
from tests.engine.curvature.cases import BAGS, DENSE, IMAGES, SERIES, TOKENS, VOLUMES, case, flat

pytestmark = pytest.mark.gpu

# Those whose layers draw random numbers draw others on another device.
_RANDOM = ("dropout", "random_relu", "checkpointed", "_deep")
CASES = [
    name
    for name in (*DENSE, *IMAGES, *VOLUMES, *SERIES, *TOKENS, *BAGS)
    if not any(word in name for word in _RANDOM)
]
# Not differentiable twice in torch, or not by their own rule.
_NO_HESSIAN = ("Hardsigmoid", "custom_function", "weight_norm")


PAIRS = [
    *((GGN, name) for name in CASES),
    *((Hessian, name) for name in CASES if name not in _NO_HESSIAN and "bag" not in name),
]


@pytest.mark.parametrize(("make", "name"), PAIRS)
def test_a_product_on_a_gpu_is_that_on_a_cpu(make, name):
    model, x, y = case(name)
    there = copy.deepcopy(model).cuda()
    torch.manual_seed(0)
    v = [torch.randn_like(p) for p in model.parameters() if p.requires_grad]
    here = make(model, "cross_entropy", x, y)
    on_gpu = make(there, "cross_entropy", x.cuda(), y.cuda())
    expected, found = flat(here.product(v)), flat(on_gpu.product([t.cuda() for t in v]))
    assert found.is_cuda
    # Some kernels take constants or norms in single precision on one of the two.
    scale = expected.norm().clamp_min(1e-12)
    assert float((found.cpu() - expected).norm() / scale) < 1e-6
    torch.testing.assert_close(on_gpu.loss.cpu(), here.loss, rtol=1e-6, atol=1e-9)
    for mine, theirs in zip(there.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-6, atol=1e-9)
