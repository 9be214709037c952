"""The search over single weights: what it compares, keeps, tries next, remembers and refuses."""

import math
from types import SimpleNamespace

import pytest
import torch

from mlhf import MetaCheckpoint, meta_train
from mlhf.core.errors import SpecError
from mlhf.meta import moves
from mlhf.meta.config import MetaTrainConfig, Search, total_iterations
from mlhf.meta.search import CoordinateSearch
from mlhf.optimizers.mlhf.kronecker.optimizer import fresh_networks

DIGITS = {"name": "digits", "params": {"train_samples": 100, "test_samples": 50}}
MODEL = {"name": "mlp", "params": {"hidden": [6], "dropout": 0.1}}
UP, DOWN = {"damping.weight.0": 1.0}, {"damping.weight.0": -1.0}
OTHER = {"step.weight.1.0": 0.25, "damping.kinds.5": 0.25}


class Plain:
    """Runs whose error is known: a bowl around damping.weight.0 = -2, and the run's own noise."""

    def __init__(self, tasks=2, noise=0.0, by_seed=(), **search):
        self.learner = SimpleNamespace(networks=fresh_networks())
        self.streams = [torch.Generator() for _ in range(2)]
        self.noise, self.seen, self.iteration = noise, [], 0
        self.by_seed, self.seeds = by_seed, []
        self.search = CoordinateSearch(
            Search(**search),
            tasks=tasks,
            seed=7,
            start=self._start,
            unroll=self._unroll,
            streams=self.streams,
        )

    def _start(self, task, seed):
        if seed not in self.seeds:
            self.seeds.append(seed)
        return SimpleNamespace(task=task, seed=seed, steps=0)

    def _unroll(self, start):
        drawn = [float(torch.rand((), generator=g)) for g in self.streams]
        self.seen.append((start.task, start.seed, *drawn, float(torch.rand(()))))
        at = float(self.learner.networks["damping"].weight[0].detach())
        error = (at + 2) ** 2 + self.noise * math.sin(1e3 * at * drawn[0]) + 50 * drawn[1]
        if self.by_seed and self.learner.networks["step"].weight[1, 0]:
            error += self.by_seed[self.seeds.index(start.seed)]
        return SimpleNamespace(error=torch.tensor(error), end=SimpleNamespace(steps=5))

    def runs(self, count):
        found = []
        for _ in range(count):
            found.append(self.search.step(self.learner, self.iteration))
            self.iteration += 1
        return found

    def tried(self):
        return [(t["move"], t["kept"]) for t in self.search.lineage()["tried"]]


def test_all_candidates_see_the_same_tasks_starts_batches_and_draws():
    plain = Plain(tasks=2, seeds=3, moves=[DOWN, UP])
    found = plain.runs(18)
    first, second, third = (plain.seen[i : i + 6] for i in (0, 6, 12))
    assert first == second == third
    assert len(set(first)) == 6
    assert [run[0] for run in first] == [0, 1, 0, 1, 0, 1]
    assert [bool(f.losses) for f in found] == [i % 6 == 5 for i in range(18)]
    assert all(f.steps == 5 for f in found)


def test_a_candidate_that_is_not_ahead_after_a_seed_has_no_more_runs():
    plain = Plain(tasks=2, seeds=3, moves=[UP, OTHER, DOWN])
    found = plain.runs(6 + 2 + 2 + 6)
    tried = plain.search.lineage()["tried"]
    assert [t["runs"] for t in tried] == [6, 2, 2, 6]
    assert plain.tried()[1:] == [(UP, False), (OTHER, False), (DOWN, True)]
    assert plain.seen[6:8] == plain.seen[8:10] == plain.seen[:2]
    assert float(found[7].stats["difference"]) == pytest.approx(5)
    # The curve compares like with like: all the runs of what is kept, and the difference.
    kept = float(found[5].losses["step"])
    assert float(found[7].stats["candidate"]) == pytest.approx(kept + 5)


@pytest.mark.parametrize(
    ("by_seed", "runs", "kept"),
    [
        ([-1.0, 2.0, -9.0], 2, False),
        ([-1.0, 0.5, -9.0], 3, True),
        ([-1.0, -1.0, -1.0], 3, True),
        ([-1.0, -1.0, 1.9], 3, False),
        ([0.0, -9.0, -9.0], 1, False),
        ([math.nan, -9.0, -9.0], 1, False),
    ],
    ids=["lead lost", "lead kept", "clear", "within its error", "no lead", "no number"],
)
def test_how_long_a_candidate_runs(by_seed, runs, kept):
    plain = Plain(tasks=1, seeds=3, moves=[OTHER], by_seed=by_seed)
    plain.runs(3 + runs)
    (_, tried) = plain.search.lineage()["tried"]
    assert (tried["runs"], tried["kept"]) == (runs, kept)


def test_a_move_that_helps_is_kept_and_tried_again_and_its_opposite_left_out():
    plain = Plain(seeds=1, moves=[DOWN, UP, OTHER])
    plain.runs(2 * 6)
    half = {name: value / 2 for name, value in OTHER.items()}
    assert plain.tried() == [
        ({}, False),
        (DOWN, True),
        (DOWN, True),
        (DOWN, False),
        (OTHER, False),
        (DOWN, False),
    ]
    assert float(plain.learner.networks["damping"].weight[0].detach()) == -2
    plain.runs(2 * 2)  # nothing helped in the second pass: half of each, from the first on
    assert plain.tried()[6:] == [(UP, False), (OTHER, False)]
    plain.runs(2 * 3)
    assert plain.tried()[8:] == [
        ({"damping.weight.0": -0.5}, False),
        ({"damping.weight.0": 0.5}, False),
        (half, False),
    ]
    others = plain.learner.networks
    assert not others["step"].weight.any()
    assert not others["damping"].kinds.any()


def test_the_networks_have_the_kept_weights_between_runs():
    plain = Plain(tasks=3, seeds=1, moves=[DOWN])
    weight = plain.learner.networks["damping"].weight.detach()
    at = []
    for _ in range(9):
        plain.runs(1)
        at.append(float(weight[0]))
    assert at == [0, 0, 0, 0, 0, -1, -1, -1, -2]


def test_what_the_curve_says():
    plain = Plain(tasks=1, seeds=1, moves=[UP])
    first, second = plain.runs(2)
    shared = float(first.losses["step"]) - 4
    assert float(second.losses["step"]) == pytest.approx(4 + shared)
    assert float(second.stats["candidate"]) == pytest.approx(9 + shared)
    assert float(second.stats["difference"]) == pytest.approx(5)
    assert second.finite


def test_a_gain_within_its_standard_error_is_not_kept():
    noisy = Plain(tasks=4, seeds=4, noise=9.0, moves=[DOWN], margin=3.0)
    noisy.runs(32)
    (_, tried) = noisy.search.lineage()["tried"]
    assert -3 * tried["error"] <= tried["difference"] < 0, "the noise must not hide that it helps"
    assert not tried["kept"]
    bold = Plain(tasks=4, seeds=4, noise=9.0, moves=[DOWN], margin=0.0)
    bold.runs(32)
    assert bold.tried()[1] == (DOWN, True)


def test_by_default_each_weight_is_moved_up_and_down():
    plain = Plain(tasks=1, seeds=1, step=0.25)
    plain.runs(4)
    assert [move for move, _ in plain.tried()] == [
        {},
        {"damping.weight.0": 0.25},
        {"damping.weight.0": -0.25},
        {"damping.weight.0": -0.25},
    ]
    assert len(moves.coordinate_moves(0.25)) == 2 * 46


def test_the_named_weights_are_the_networks():
    shapes = {
        f"{name}.{key}": tuple(value.shape)
        for name, net in fresh_networks().items()
        for key, value in net.state_dict().items()
    }
    assert shapes == {name: tuple(shape) for name, shape in moves.SHAPES.items()}
    assert moves.locate_weight("step.weight.2.9") == ("step", "weight", (2, 9))


def _config(**changes):
    return {
        "tasks": [{"model": MODEL, "dataset": DIGITS, "batch_sizes": [8, 16]}],
        "iterations": 3,
        "unroll": 5,
        "estimator": {"name": "search", "seeds": 2, "moves": [OTHER, UP], "margin": 0.0},
        "threads": 1,
        "device": "cpu",
        "seed": 3,
        **changes,
    }


def _stop_after(iterations):
    asked = iter(range(10**9))
    return lambda: next(asked) >= iterations


def _points(events):
    return [(p["step"], p["values"]) for e in events if e["type"] == "points" for p in e["points"]]


def _bent(path):
    """A meta-checkpoint to begin from, far too damped, of an earlier lineage."""
    weights = {name: dict(net.state_dict()) for name, net in fresh_networks().items()}
    weights["damping"]["kinds"] += 1.0
    MetaCheckpoint("mlhf", weights, {"kinds": [0, 1], "seed": 11}).save(path)
    return weights


@pytest.mark.slow
def test_a_run_stopped_in_the_middle_of_a_candidate_goes_on_as_if_it_had_not(tmp_path):
    weights = _bent(tmp_path / "bent.safetensors")
    down = {f"damping.kinds.{kind}": -1.0 for kind in range(6)}
    run = _config(
        start=str(tmp_path / "bent.safetensors"),
        iterations=4,
        estimator={"name": "search", "seeds": 2, "moves": [down, UP]},
        unroll=20,
    )
    whole_events, first, second = [], [], []
    whole = meta_train(run, on_event=whole_events.append)
    torch.manual_seed(77)
    stopped = meta_train(run, on_event=first.append, run_dir=tmp_path, should_stop=_stop_after(7))
    assert stopped.status == "interrupted"
    (saved,) = [e for e in first if e["type"] == "checkpoint"]
    rest = meta_train(run, on_event=second.append, run_dir=tmp_path, resume=saved["path"])
    assert (saved["step"], second[0]["resumed_from_step"], second[0]["total_steps"]) == (7, 7, 16)
    assert _points(first) + _points(second) == _points(whole_events)
    assert [step for step, _ in _points(whole_events)] == [4, 8, 12, 14, 16]
    losses = [values["meta_loss"] for _, values in _points(whole_events)]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] < losses[0], "less damping must help here"
    assert whole.summary["meta_loss"]["last"] == losses[-1]
    lineage = whole.checkpoint.lineage
    assert lineage["tried"] == rest.checkpoint.lineage["tried"]
    assert lineage["start"] == {"kinds": [0, 1], "seed": 11}
    assert lineage["kinds"] == [0, 1, 2, 3]
    expected = {n: {k: v.clone() for k, v in of.items()} for n, of in weights.items()}
    for tried in lineage["tried"]:
        for name, value in tried["move"].items() if tried["kept"] else ():
            network, tensor, index = moves.locate_weight(name)
            expected[network][tensor][index] += value
    for name, values in expected.items():
        for key, value in values.items():
            assert torch.equal(whole.checkpoint.weights[name][key], value)
            assert torch.equal(rest.checkpoint.weights[name][key], value)


@pytest.mark.parametrize("kinds", [None, "all", [[0], 1]], ids=["null", "text", "lists"])
def test_a_lineage_that_says_no_kinds_is_no_obstacle(tmp_path, kinds):
    weights = {name: dict(net.state_dict()) for name, net in fresh_networks().items()}
    path = tmp_path / "odd.safetensors"
    MetaCheckpoint("mlhf", weights, {"kinds": kinds}).save(path)
    made = meta_train(_config(iterations=1, start=str(path))).checkpoint
    assert made.lineage["kinds"] == ([1, 2, 3] if isinstance(kinds, list) else [2, 3])
    assert made.lineage["start"] == {"kinds": kinds}


def test_progress_is_told_for_each_run_though_a_candidate_has_several():
    events = []
    meta_train(_config(), on_event=events.append, flush_seconds=0.0)
    told = [e["step"] for e in events if e["type"] == "progress"]
    assert told == list(range(13))  # the first at the start


def test_an_iteration_of_the_configuration_is_a_candidate():
    config = MetaTrainConfig.model_validate(_config())
    assert total_iterations(config, config.tasks) == 3 * 2 * 2
    pes = MetaTrainConfig.model_validate(_config(estimator={"name": "pes"}))
    assert total_iterations(pes, pes.tasks) == 3


@pytest.mark.parametrize(
    ("changes", "pointer", "said"),
    [
        ({"moves": [{"step.weight.3.0": 1.0}]}, "/estimator/moves", "step.weight.<0 to 2>"),
        ({"moves": [UP, {"step": 1.0}]}, "/estimator/moves", "'step' is no weight"),
        ({"moves": [UP, {}]}, "/estimator/moves", "move 1"),
        (
            {"moves": [{"damping.weight.0": math.inf}]},
            "/estimator/moves/0/damping.weight.0",
            "finite",
        ),
        ({"moves": []}, "/estimator/moves", "at least 1"),
        ({"seeds": 0}, "/estimator/seeds", "greater than or equal to 1"),
        ({"margin": -1}, "/estimator/margin", "greater than or equal to 0"),
    ],
    ids=["no such row", "no such weight", "empty", "infinite", "none", "no seeds", "margin"],
)
def test_moves_that_cannot_be_made_are_refused(changes, pointer, said):
    with pytest.raises(SpecError) as error:
        meta_train(_config(estimator={"name": "search", **changes}))
    assert error.value.pointer == pointer
    assert said in str(error.value)


@pytest.mark.parametrize(
    "other", [{"variant": "paper"}, {"optimizer": "l2l"}], ids=["paper", "l2l"]
)
def test_it_is_for_the_kronecker_form(other):
    with pytest.raises(SpecError, match="Kronecker"):
        meta_train(_config(**other))
