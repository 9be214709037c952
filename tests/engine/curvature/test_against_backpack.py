"""The same products by BackPACK's Hessian-free helper."""

import pytest
import torch
import torch.nn.functional as F

from mlhf.curvature.ggn import GGN
from tests.engine.curvature.cases import assert_close, case, flat

ggnvp = pytest.importorskip("backpack.hessianfree.ggnvp")


@pytest.mark.parametrize(
    "name",
    ["mlp", "conv", "transposed", "max_pool", "batch_norm2d", "layer_norm", "group_norm", "shared"],
)
def test_equal(name):
    model, x, y = case(name)
    used = [p for n, p in model.named_parameters() if not n.startswith("unused")]
    ggn = GGN(model, "cross_entropy", x, y, used)
    v = [torch.randn_like(p) for p in used]
    z = model(x)
    theirs = ggnvp.ggn_vector_product_from_plist(F.cross_entropy(z, y), z, used, v)
    assert_close(flat(ggn.product(v)), flat(theirs))
