"""The criteria of the protocol, each met, missed or not run, with its numbers."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.harness.statistics import Curve
from bench.judge.contenders import (
    ADAMW_DEFAULTS,
    CANDIDATE,
    CONTROL,
    REFERENCE,
    WITH_DECAY,
    contender,
    names,
)
from bench.judge.measures import (
    crossing,
    estimate,
    final,
    integral,
    seconds_of,
    train_losses,
)
from bench.judge.results import Curves, TaskResults, paired
from bench.judge.step_timing import StepTiming
from bench.judge.tasks import FAMILIES
from mlhf.ablation.statistics import mean


@dataclass(frozen=True)
class Finding:
    """The outcome of a criterion on one task; ``met`` is None where it was not run."""

    where: str
    met: bool | None
    numbers: str


@dataclass(frozen=True)
class Criterion:
    """The outcome of a criterion over all tasks.

    Attributes:
        needed: How many families have to meet it.
        families: Whether each family meets it, that is, all its tasks do.
    """

    name: str
    needed: int
    families: Mapping[str, bool | None]
    findings: Sequence[Finding]

    @property
    def met(self) -> bool | None:
        """Whether enough families meet it; None while families not run could decide."""
        if sum(m is True for m in self.families.values()) >= self.needed:
            return True
        possible = sum(m is not False for m in self.families.values())
        return False if possible < self.needed else None


Check = Callable[[TaskResults], Finding]


def decide(judged: Sequence[TaskResults], transferred: Sequence[TaskResults]) -> list[Criterion]:
    """Return all criteria, those about samples first."""
    everywhere, three = len(FAMILIES), 3
    convolutional = [r for r in judged if r.task.family in ("convnet", "resnet")]
    return [
        _criterion(
            "1a below every first-order peer at every epoch from the 2nd",
            everywhere,
            judged,
            below_first_order,
        ),
        _criterion("1b stable to three times the horizon", everywhere, judged, stable),
        _criterion(
            "1c at most half of AdamW's samples to its final loss", three, judged, half_samples
        ),
        _criterion("1d ahead of Muon, SOAP, Shampoo and K-FAC", three, judged, ahead_of_matrix),
        _criterion(
            "2a at most 1.0 times the best scheduled peer's seconds",
            2,
            convolutional,
            lambda r: seconds_against_best(r, 1.0),
        ),
        _criterion(
            "2b at most 0.8 times the best scheduled peer's seconds",
            2,
            convolutional,
            lambda r: seconds_against_best(r, 0.8),
        ),
        _criterion("3 the learned part ahead of its untrained control", three, judged, learned),
        _transfer_criterion(transferred),
        _criterion(
            "5 test loss and accuracy not worse at equal training loss",
            everywhere,
            judged,
            test_at_equal_training,
        ),
    ]


def below_first_order(results: TaskResults) -> Finding:
    """1a: mean training loss below each first-order peer's after every epoch but the 1st."""
    mine, peers, missing = _against(results, names("first order"))
    if mine is None or not peers:
        return _not_run(results, missing)
    ours = _mean_losses(mine)
    theirs = {name: _mean_losses(curves) for name, curves in peers.items()}
    epochs = range(2, len(ours))
    above: dict[int, tuple[float, str]] = {}
    for epoch in epochs:
        best = min(theirs, key=lambda n: theirs[n][epoch] if epoch < len(theirs[n]) else math.inf)
        ratio = ours[epoch] / max(theirs[best][epoch], 1e-12)
        if not ratio < 1:
            above[epoch] = (ratio, best)
    text = f"below at {len(epochs) - len(above)} of {len(epochs)} epochs"
    if above:
        worst = max(above, key=lambda e: above[e][0])
        ratio, name = above[worst]
        text += f"; first not at epoch {min(above)}; worst {ratio:.2f} × {name} at epoch {worst}"
    return _finding(results, not above, text, missing)


def stable(results: TaskResults) -> Finding:
    """1b: no seed diverges, and none exceeds its loss at the horizon afterwards."""
    curves = results.long.get(CANDIDATE)
    if not curves:
        return _not_run(results, ["three times the horizon"])
    worst = 0.0
    for curve in curves.values():
        losses = train_losses(curve)
        if curve.result["status"] == "diverged":
            worst = math.inf
            break
        at = round((len(losses) - 1) / 3)
        worst = max(worst, max(losses[at + 1 :]) / max(losses[at], 1e-6))
    ends = estimate([final(c) for c in curves.values()])
    text = f"highest later loss {worst:.2f} × that at the horizon; final {ends}"
    peer = results.long.get(REFERENCE)
    if peer:
        text += f" (adamw {estimate([final(c) for c in peer.values()])})"
    return Finding(results.task.name, worst <= 1, f"{text}; {len(curves)} seeds")


def half_samples(results: TaskResults) -> Finding:
    """1c: samples to AdamW's final loss, as a fraction of AdamW's horizon."""
    mine, theirs = results.reached(CANDIDATE, "100"), results.curves.get(REFERENCE)
    if not theirs or mine is None:
        return _not_run(results, [REFERENCE if not theirs else CANDIDATE])
    horizon = mean([c.points[-1]["samples"] for c in theirs.values()])
    ratio = mine.samples.mean / horizon
    if mine.missed:
        return Finding(results.task.name, False, f"missed by {mine.missed} seeds")
    text = f"{ratio:.2f} of AdamW's samples ({mine.samples} of {horizon:,.0f})"
    return Finding(results.task.name, ratio <= 0.5, text)


def ahead_of_matrix(results: TaskResults) -> Finding:
    """1d: mean over seeds of the integrated log training loss, against each matrix peer's."""
    mine, peers, missing = _against(results, names("matrix"))
    if mine is None or not peers:
        return _not_run(results, missing)
    ours = mean([integral(c) for c in mine.values()])
    gaps = {n: ours - mean([integral(c) for c in peer.values()]) for n, peer in peers.items()}
    text = "integrated log loss against " + ", ".join(f"{n} {g:+.2f}" for n, g in gaps.items())
    return _finding(results, all(g < 0 for g in gaps.values()), text, missing)


def seconds_against_best(results: TaskResults, limit: float) -> Finding:
    """2: seconds to AdamW's final loss, against the fastest scheduled peer.

    Peers choose their horizon. The candidate knows none, and is judged on all its seeds.
    """
    scheduled = [*names("first order"), *names("matrix")]
    mine = results.reached(CANDIDATE, "100")
    found = {n: r for n in scheduled if (r := results.fastest(n, "100"))}
    missing = [n for n in scheduled if n not in found or n not in results.chosen]
    if mine is None or not found:
        return _not_run(results, [CANDIDATE] if mine is None else missing)
    best = min(found, key=lambda n: found[n].seconds.mean)
    first_order = [n for n in names("first order") if n in found]
    first = min(first_order, key=lambda n: found[n].seconds.mean, default=best)
    if math.isinf(mine.seconds.mean):
        return Finding(results.task.name, False, f"missed by {mine.missed} seeds")
    ratio = mine.seconds.mean / found[best].seconds.mean
    how = "in turns" if results.shared_timing else "as run"
    against_first = "no first-order peer got there on all its seeds"
    if math.isfinite(found[first].seconds.mean):
        against_first = f"{mine.seconds.mean / found[first].seconds.mean:.2f} × {first}"
    text = (
        f"{ratio:.2f} × {best} ({mine.seconds} s against {found[best].seconds} s at "
        f"{found[best].factor:g} × the horizon, step times {how}); {against_first}"
    )
    missing = [f"{n}'s horizons" for n in missing]
    return _finding(results, ratio <= limit, text, missing)


def learned(results: TaskResults) -> Finding:
    """3: candidate minus control, seed by seed: integrated log loss, and seconds to a target."""
    mine, control = results.curves.get(CANDIDATE), results.curves.get(CONTROL)
    gap = paired(mine, control, integral) if mine and control else None
    if mine is None or control is None or gap is None:
        return _not_run(results, [n for n in (CANDIDATE, CONTROL) if n not in results.curves])
    ahead = gap.count > 1 and gap.mean + gap.half < 0
    text = f"integrated log loss {gap.mean:+.3f} ± {gap.half:.2g}"
    goal = results.targets.get("100")
    if goal is not None:
        spent = {
            name: (lambda c, name=name: _log_seconds(c, goal, results.shared_timing.get(name)))
            for name in (CANDIDATE, CONTROL)
        }
        seeds = sorted(set(mine) & set(control))
        ratio = estimate([spent[CANDIDATE](mine[s]) - spent[CONTROL](control[s]) for s in seeds])
        if math.isfinite(ratio.mean):
            ahead = ahead or (ratio.count > 1 and ratio.mean + ratio.half < 0)
            low, high = math.exp(ratio.mean - ratio.half), math.exp(ratio.mean + ratio.half)
            text += f"; seconds {math.exp(ratio.mean):.2f} × ({low:.2f} to {high:.2f})"
    return Finding(results.task.name, ahead, f"{text}; {gap.count} seeds")


def transferred(results: TaskResults) -> Finding:
    """4: no divergence, and ahead of AdamW at its defaults in final and integrated loss."""
    mine, peer = (results.curves.get(n) for n in (CANDIDATE, ADAMW_DEFAULTS.name))
    where = f"{results.task.name} ({results.task.kind})"
    if not mine or not peer:
        return Finding(where, None, "not run")
    ends = [estimate([final(c) for c in of.values()]) for of in (mine, peer)]
    areas = [estimate([integral(c) for c in of.values()]) for of in (mine, peer)]
    diverged = sum(c.result["status"] == "diverged" for c in mine.values())
    met = not diverged and ends[0].mean < ends[1].mean and areas[0].mean < areas[1].mean
    text = f"final {ends[0]} against {ends[1]}, integrated log {areas[0]} against {areas[1]}"
    control = results.curves.get(CONTROL)
    if control:
        text += f" (untrained: {estimate([final(c) for c in control.values()])})"
    return Finding(where, met, f"{diverged} diverged; {text}" if diverged else text)


def test_at_equal_training(results: TaskResults) -> Finding:
    """5: where each reaches a target, test loss and accuracy match AdamW's within the intervals.

    At the candidate's defaults, or else with weight decay.
    """
    theirs, name = results.curves.get(REFERENCE), results.task.name
    if CANDIDATE not in results.curves or not theirs:
        return _not_run(results, [n for n in (CANDIDATE, REFERENCE) if n not in results.curves])
    met, text = _not_worse(results, results.curves[CANDIDATE], theirs)
    if not met and WITH_DECAY in results.curves:
        met, decayed = _not_worse(results, results.curves[WITH_DECAY], theirs)
        params = ", ".join(f"{k} {v}" for k, v in contender(WITH_DECAY).params.items())
        text += f"; with {params}: {decayed}"
    return Finding(name, met, text)


def _not_worse(results: TaskResults, mine: Curves, theirs: Curves) -> tuple[bool, str]:
    """Return whether test loss and accuracy are not worse at any target, and the numbers."""
    found, met = [], True
    for percent, goal in results.targets.items():
        for metric, sign in (("test_loss", 1), ("test_accuracy", -1)):
            ours, other = (_at(curves, goal, metric) for curves in (mine, theirs))
            if not ours or not other:
                continue
            a, b = estimate(ours), estimate(other)
            worse = sign * (a.mean - b.mean)
            met = met and worse <= max(math.hypot(a.half, b.half), 1e-6 * abs(b.mean))
            found.append(f"{metric.removeprefix('test_')} at {percent} % {a} against {b}")
    return (met, "; ".join(found)) if found else (False, "never at AdamW's training losses")


def _criterion(name: str, needed: int, every: Iterable[TaskResults], check: Check) -> Criterion:
    by_family: dict[str, list[Finding]] = {}
    for results in every:
        by_family.setdefault(results.task.family, []).append(check(results))
    families = {f: _all([x.met for x in found]) for f, found in by_family.items()}
    findings = [x for found in by_family.values() for x in found]
    return Criterion(name, min(needed, len(by_family)), families, findings)


def _transfer_criterion(every: Sequence[TaskResults]) -> Criterion:
    findings = [transferred(r) for r in every]
    by_kind: dict[str, list[bool | None]] = {}
    for results, finding in zip(every, findings, strict=True):
        by_kind.setdefault(results.task.kind, []).append(finding.met)
    kinds = {kind: _all(met) for kind, met in by_kind.items()}
    name = "4 transfer: no divergence, ahead of AdamW at its defaults"
    return Criterion(name, len(kinds), kinds, findings)


def _all(met: Sequence[bool | None]) -> bool | None:
    """Return False if one misses, True if all meet, None while some were not run."""
    if any(m is False for m in met):
        return False
    return True if met and all(met) else None


def _against(
    results: TaskResults, peers: Sequence[str]
) -> tuple[Curves | None, dict[str, Curves], list[str]]:
    """Return the candidate's curves, those of the peers that ran, and the names missing."""
    found = {n: results.curves[n] for n in peers if n in results.curves}
    missing = [n for n in (CANDIDATE, *peers) if n not in results.curves]
    return results.curves.get(CANDIDATE), found, missing


def _finding(results: TaskResults, met: bool, text: str, missing: Sequence[str]) -> Finding:
    """Return a finding; what is met only among the peers that ran is not met yet."""
    if missing:
        text += f" (not run: {', '.join(missing)})"
    return Finding(results.task.name, None if met and missing else met, text)


def _not_run(results: TaskResults, missing: Sequence[str]) -> Finding:
    return Finding(results.task.name, None, f"not run: {', '.join(missing) or CANDIDATE}")


def _mean_losses(curves: Curves) -> list[float]:
    """Return the mean training loss after each epoch, infinite once a seed has diverged."""
    losses = [train_losses(c) for c in curves.values()]
    longest = max(map(len, losses))
    padded = [[*each, *[math.inf] * (longest - len(each))] for each in losses]
    return [mean(at) for at in zip(*padded, strict=True)]


def _at(curves: Curves, goal: float, metric: str) -> list[float]:
    """Return a metric where each seed reaches a training loss, without the seeds that miss it."""
    found = [crossing(c, goal) for c in curves.values()]
    return [p[metric] for p in found if p is not None and metric in p]


def _log_seconds(curve: Curve, goal: float, timing: StepTiming | None) -> float:
    at = crossing(curve, goal)
    return math.inf if at is None else math.log(max(seconds_of(at, timing), 1e-9))
