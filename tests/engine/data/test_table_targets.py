"""Several target columns: one-hot classes, labels of yes or no, numbers."""

import numpy as np
import pytest

from mlhf.core.errors import SpecError
from mlhf.data.specs import DATASETS, describe, inspect
from mlhf.models.files import load_model
from mlhf.training.run import train

_LABELS = {"sport": [1, 0, 0, 1, 1, 0], "news": [0, 1, 0, 1, 0, 1]}
_ONE_HOT = {"cat": [1, 0, 0, 1, 0, 0], "dog": [0, 1, 0, 0, 1, 0], "cow": [0, 0, 1, 0, 0, 1]}
_NUMBERS = {"u": [0.5, 1, 2, 3, 4, 5], "v": [1, 0, 1, 0, 1, 0]}


def _write(folder, targets):
    columns = {"a": range(6), **targets}
    lines = [columns, *zip(*columns.values(), strict=True)]
    (folder / "t.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("targets", "task", "outputs", "names", "types"),
    [
        (_LABELS, "multilabel", 2, ("sport", "news"), "boolean"),
        (_ONE_HOT, "classification", 3, ("cat", "dog", "cow"), "class"),
        (_NUMBERS, "regression", 2, None, "number"),
    ],
)
def test_several_targets_are_told_apart(tmp_path, targets, task, outputs, names, types):
    _write(tmp_path, targets)
    inspection = inspect("table", {"target": list(targets)}, tmp_path)
    info, report = inspection.info, inspection.report
    assert (info.task, info.outputs, info.class_names) == (task, outputs, names)
    assert info.input_shape == (1,), "targets are no inputs"
    assert info == describe("table", {"target": list(targets)}, tmp_path)
    assert report.label == ", ".join(targets)
    shown = {column.name: (column.role, column.type) for column in report.columns}
    assert shown == {"a": ("input", "number")} | dict.fromkeys(targets, ("target", types))
    if names is not None:
        counted = {each.name: each.train + each.test for each in report.classes}
        assert counted == {name: sum(values) for name, values in targets.items()}


def test_the_values_are_those_of_the_file(tmp_path):
    for targets, expected in (
        (_LABELS, np.array(list(_LABELS.values())).T),
        (_ONE_HOT, np.array([0, 1, 2, 0, 1, 2])),
        (_NUMBERS, np.array(list(_NUMBERS.values())).T),
    ):
        _write(tmp_path, targets)
        arrays = DATASETS["table"].read(
            DATASETS.parse("table", {"target": list(targets)}), tmp_path
        )
        found = {}
        for split in (arrays.train, arrays.test):
            for row, target in zip(split.inputs[:, 0], split.targets, strict=True):
                found[int(row)] = target
        assert np.array_equal([found[row] for row in range(6)], expected)


def test_the_task_can_be_chosen(tmp_path):
    _write(tmp_path, _ONE_HOT)
    for task in ("multilabel", "regression", "classification"):
        assert describe("table", {"target": list(_ONE_HOT), "task": task}, tmp_path).task == task


@pytest.mark.parametrize(
    ("params", "pointer", "message"),
    [
        ({"target": ["u", "v"], "task": "multilabel"}, "/params/task", "must hold 0 or 1"),
        ({"target": ["u", "v"], "task": "classification"}, "/params/task", "a single 1"),
        ({"target": ["u", "w"]}, "/params/target/1", "no column 'w'"),
        ({"target": ["u", "text"]}, "/params/target/1", "not numbers to predict"),
        ({"target": "v", "task": "multilabel"}, "/params/task", "name them all in `target`"),
        ({"target": ["u", "u"]}, "/params/target", "named twice"),
        ({"target": []}, "/params/target", "at least one column"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, params, pointer, message):
    _write(tmp_path, {**_NUMBERS, "text": list("xyxyxy")})
    with pytest.raises(SpecError, match=message) as refused:
        describe("table", params, tmp_path)
    assert refused.value.pointer.startswith(pointer)


def test_rows_without_one_of_the_targets_are_dropped(tmp_path):
    (tmp_path / "t.csv").write_text("a,u,v\n1,1,\n2,0,1\n3,1,1\n4,0,0\n")
    found = inspect("table", {"target": ["u", "v"], "missing": "fill"}, tmp_path)
    assert found.report.dropped_rows == 1
    assert found.info.train_samples + found.info.test_samples == 3


def test_labels_of_a_table_are_learned_and_predicted(tmp_path):
    values = np.random.default_rng(0).normal(size=(200, 2))
    labels = (values > 0).astype(int)
    rows = [f"{a},{b},{up},{right}" for (a, b), (up, right) in zip(values, labels, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,up,right", *rows]))
    config = {
        "model": {"name": "mlp", "params": {"hidden": [8]}},
        "dataset": {"name": "table", "params": {"target": ["up", "right"]}, "root": str(tmp_path)},
        "optimizer": {"name": "adam", "params": {"lr": 0.03}},
        "budget": {"epochs": 10},
        "batch_size": 32,
    }
    train(config, [].append, tmp_path / "run")
    network = load_model(tmp_path / "run" / "artifacts")
    assert (network.info.task, network.info.class_names) == ("multilabel", ("up", "right"))
    inputs = [{"a": a, "b": b, "up": 1, "right": 1} for a, b in values]  # targets are not read
    assert (network.predict(inputs).numpy() == labels).mean() > 0.9
