"""Tables of which a batch has few rows: the same steps as by whole products."""

import torch
from torch import nn

from mlhf import MLHF
from mlhf.optimizers.mlhf.kronecker import sparse_rows
from mlhf.optimizers.mlhf.kronecker.sparse_rows import live_rows, with_rows


def test_rows_that_are_not_zero_are_found_where_they_are_few():
    table = torch.zeros(5000, 3)
    assert live_rows(table).tolist() == []
    table[7, 2], table[4000, 0] = -1, torch.nan
    live = live_rows(table)
    assert live.tolist() == [7, 4000]
    torch.testing.assert_close(with_rows(table, live, table[live]), table, equal_nan=True)
    assert live_rows(torch.ones(5000, 3)) is None
    assert live_rows(torch.zeros(10, 3)) is None


def test_a_long_table_takes_the_same_steps(monkeypatch):
    ends = []
    for longest in (4096, 1 << 30):
        monkeypatch.setattr(sparse_rows, "_LONG", longest)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(5000, 6), nn.Flatten(), nn.Linear(24, 3)).double()
        optimizer = MLHF(model)
        generator = torch.Generator().manual_seed(1)
        for _ in range(6):
            x = torch.randint(50, (16, 4), generator=generator) * 90
            optimizer.step(x, x[:, 0] // 90 % 3)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends)
