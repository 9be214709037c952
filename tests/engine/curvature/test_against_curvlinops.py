"""The same products by an independent library."""

import pytest
import torch
from torch import nn

from mlhf.curvature.ggn import GGN

curvlinops = pytest.importorskip("curvlinops")

MODELS = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 9), nn.ReLU(), nn.Linear(9, 4)),
    "conv": lambda: nn.Sequential(
        *(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(5, 4, 3, padding=1), nn.Sigmoid(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(4, 4)),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_equal(name, loss):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    cross_entropy = loss == "cross_entropy"
    y = torch.randint(0, 4, (6,)) if cross_entropy else torch.randn(6, 4, dtype=torch.float64)
    function = nn.CrossEntropyLoss() if cross_entropy else nn.MSELoss()
    operator = curvlinops.GGNLinearOperator(model, function, list(model.parameters()), [(x, y)])
    ggn = GGN(model, loss, x, y)
    v = [torch.randn_like(p) for p in model.parameters()]
    flat = torch.cat([t.reshape(-1) for t in v])
    theirs = operator @ flat
    mine = torch.cat([t.reshape(-1) for t in ggn.product(v)])
    assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-14)
