"""Products by either library against float64."""

import pytest
import torch

from mlhf.optimizers import products
from mlhf.optimizers.products import product


@pytest.mark.parametrize("shape", [(3, 4, 5), (300, 257, 130)], ids=["small", "large"])
@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_it_is_the_product(shape, transposed, dtype):
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(m, k, generator=generator, dtype=dtype)
    b = torch.randn(n, k, generator=generator, dtype=dtype)
    if transposed:
        a, b = a.T.contiguous().T, b.T.contiguous().T
    found = product(a, b)
    assert found.dtype == dtype
    assert found.layout == torch.strided
    expected = a.double() @ b.double().T
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_a_large_product_goes_by_the_quicker_library_where_there_is_one(monkeypatch):
    asked = []
    linear = products.F.linear
    monkeypatch.setattr(products.F, "linear", lambda *a: asked.append(a) or linear(*a))
    a = torch.randn(300, 257)
    product(a, a)
    assert len(asked) == 1
    product(a[:10], a[:10])
    product(a.double(), a.double())
    monkeypatch.setattr(products, "_ONEDNN", False)
    expected = product(a, a)
    assert len(asked) == 1
    torch.testing.assert_close(expected, a @ a.T)
