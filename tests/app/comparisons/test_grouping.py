"""Groups of runs that differ only in their seed, and their labels."""

from typing import Any

from mlhf_service.comparisons.grouping import group
from mlhf_service.runs.models import Run


def _run(seed: int = 0, **config: Any) -> Run:
    base = {
        "model": {"name": "mlp", "params": {"hidden": [8]}},
        "optimizer": {"name": "adam", "params": {}},
        "batch_size": 64,
        "seed": seed,
    }
    return Run(id=f"run_{id(config)}", seed=seed, config={**base, **config})


def _adam(**params: Any) -> dict[str, Any]:
    return {"name": "adam", "params": params}


def test_only_the_seed_may_differ() -> None:
    runs = [_run(0), _run(1, batch_size=32), _run(1), _run(2, optimizer=_adam(lr=0.1)), _run(2)]
    assert [[r.seed for r in g.runs] for g in group(runs)] == [[0, 1, 2], [1], [2]]


def test_the_order_of_keys_does_not_matter() -> None:
    first = _run(0, optimizer={"name": "adam", "params": {"lr": 1.0, "eps": 2.0}})
    second = _run(1, optimizer={"params": {"eps": 2.0, "lr": 1.0}, "name": "adam"})
    assert len(group([first, second])) == 1


def test_labels_say_what_differs_and_no_more() -> None:
    sgd = {"name": "sgd", "params": {"lr": 0.5}}
    runs = [
        _run(optimizer=sgd),
        _run(optimizer=_adam(lr=0.1, eps=1e-8)),
        _run(optimizer=_adam(lr=0.01, eps=1e-8)),
        _run(),
    ]
    assert [g.label for g in group(runs)] == [
        "sgd",
        "adam lr=0.1 eps=1e-08",
        "adam lr=0.01 eps=1e-08",
        "adam",
    ]
    runs = [_run(optimizer=_adam(lr=0.1)), _run(optimizer=_adam(lr=0.01))]
    assert [g.label for g in group(runs)] == ["adam lr=0.1", "adam lr=0.01"]


def test_labels_name_models_where_these_differ() -> None:
    resnet = {"name": "resnet", "params": {"depth": 8}}
    labels = [g.label for g in group([_run(), _run(model=resnet), _run(batch_size=32)])]
    assert labels[1] == "adam model=resnet depth=8 batch_size=64"
    assert labels[2] == "adam model=mlp hidden=[8] batch_size=32"


def test_labels_are_distinct_even_where_shortened() -> None:
    long = [list(range(50)), list(range(51))]
    models = [{"name": "mlp", "params": {"hidden": hidden}} for hidden in long]
    labels = [g.label for g in group([_run(model=m) for m in models])]
    assert len(set(labels)) == 2


def test_a_budget_is_named_only_where_nothing_else_tells_groups_apart() -> None:
    short, long = {"epochs": 1.0}, {"epochs": 9.0}
    fast, slow = _adam(lr=0.1), _adam(lr=0.01)
    both = [_run(optimizer=fast, budget=short), _run(optimizer=slow, budget=long)]
    assert [g.label for g in group(both)] == ["adam lr=0.1", "adam lr=0.01"]
    third = [*both, _run(optimizer=slow, budget=short)]
    assert [g.label for g in group(third)][1:] == ["adam lr=0.01 epochs=9", "adam lr=0.01 epochs=1"]


def test_uploads_are_called_by_their_names() -> None:
    runs = [_run(dataset={"name": name, "params": {}}) for name in ("ds_01", "digits")]
    runs[0].dataset_name = "flowers"
    assert [g.label for g in group(runs)] == ["adam dataset=flowers", "adam dataset=digits"]
