"""The grid of tasks that families describe."""

import torch

from mlhf.data.loading import load
from mlhf.meta.config import TaskFamily
from mlhf.meta.tasks import build_tasks

CPU = torch.device("cpu")
SCALES = [1.0, 0.5, 3.0]


def _family(samples, sizes, hidden):
    data = {"name": "digits", "params": {"train_samples": samples, "test_samples": 50}}
    model = {"name": "mlp", "params": {"hidden": [hidden], "batch_norm": True}}
    return TaskFamily.model_validate(
        {"model": model, "dataset": data, "batch_sizes": sizes, "initial_scales": SCALES}
    )


def test_every_combination_is_a_task():
    tasks, lineage = build_tasks([_family(100, [4, 8], 6), _family(60, [5, 16], 7)], CPU)
    found = [(t.samples, t.batch_size, t.scale) for t in tasks]
    grid = [(n, b, s) for n, sizes in ((100, (4, 8)), (60, (5, 16))) for b in sizes for s in SCALES]
    assert found == grid
    assert len(lineage) == 2
    assert [entry["batch_sizes"] for entry in lineage] == [[4, 8], [5, 16]]
    for task in tasks:
        x, y = task.batch(torch.Generator().manual_seed(0))
        assert len(x) == len(y) == task.batch_size
        hidden = {p.shape[0] for p in task.model(0).parameters()} - {10}
        assert hidden == {6 if task.samples == 100 else 7}


def test_batches_are_drawn_from_all_of_the_training_split():
    (task, *_), _ = build_tasks([_family(60, [16], 6)], CPU)
    data = load("digits", {"train_samples": 60, "test_samples": 50})
    known = {
        tuple(row) for row in data.batch("train", torch.arange(60), CPU)[0].flatten(1).tolist()
    }
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(40):
        seen |= {tuple(row) for row in task.batch(generator)[0].flatten(1).tolist()}
    assert seen == known


def test_the_scale_is_of_matrices_alone():
    tasks, _ = build_tasks([_family(60, [4], 6)], CPU)
    plain, *others = [dict(t.model(3).named_parameters()) for t in tasks]
    assert {p.ndim for p in plain.values()} == {1, 2}
    for scale, scaled in zip(SCALES[1:], others, strict=True):
        for name, p in plain.items():
            expected = p * scale if p.ndim > 1 else p
            assert torch.equal(scaled[name], expected), name
