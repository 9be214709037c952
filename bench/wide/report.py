"""The page: where each optimizer stands over all tasks, and on each."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.judge.report import markdown
from bench.judge.runs import short
from bench.wide import looked
from bench.wide.contenders import CANDIDATE, CONTENDERS, CONTROL, REFERENCE, Contender
from bench.wide.families import FAMILIES
from bench.wide.figures import draw_profiles
from bench.wide.profiles import area, geometric_mean, ratios, share_within
from bench.wide.results import (
    FORMS,
    Cost,
    Form,
    TaskNumbers,
    collect,
    fastest_peer,
    fixed_setting,
    place_of,
)
from bench.wide.table import Row, Table
from bench.wide.task import VERSIONS, Version

_FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
_COSTS: tuple[Cost, ...] = ("samples", "seconds")
_TITLES = {"development": "Development versions", "judged": "Judged versions"}
_FORMS = {"fixed": "One setting for all tasks", "tuned": "Peers tuned by task"}
_ORDINALS = {1: "first", 2: "second"}

_PREFACE = (
    "A target is the training loss that AdamW, tuned for the task, ends at (the mean over its "
    "seeds); between two evaluations the log loss is taken as a straight line. Seconds are CPU "
    "seconds of training, of one thread; evaluations are not counted. Runs that were added on "
    "another machine have theirs divided by how much longer a step of AdamW on the task took there "
    "and then. Peers choose from as many settings as the last table says, tried on a seed that "
    "counts nowhere else. Training losses are measured on up to 1,000 samples, 25 times a run.",
    "**One setting for all tasks** is AlgoPerf's self-tuning form: nobody sets a number for a "
    "task. A peer's one setting is the one of least mean regret over the development versions; "
    "`mlhf` runs as it comes. **Tuned** peers have the best of their settings on each task.",
    "The geometric mean is of the cost to the target over tuned AdamW's, over the tasks that "
    "both ran; a run that misses the target counts as twice a whole run of its optimizer, but "
    "for a seed of tuned AdamW that ends above its seeds' mean: its whole run. The 95 % interval "
    "draws tasks and seeds again (bootstrap). The area is that below the performance profile up "
    "to four times the best, 1 for an optimizer that is best everywhere.",
)


def report(output: Path) -> list[Path]:
    """Write ``report.md`` and the figures of whatever has been run; return their paths."""
    rows = Table(output / "runs.jsonl.gz").rows()
    lines = ["# The wide benchmark", ""]
    for paragraph in _PREFACE:
        lines += [paragraph, ""]
    written = []
    for version in VERSIONS:
        tasks = [collect(rows, f"{family}-{version}") for family in FAMILIES]
        tasks = [numbers for numbers in tasks if numbers.target is not None]
        lines += [f"## {_TITLES[version]}", ""]
        if version == "judged":
            lines += [*_looks(output), ""]
        if not tasks:
            lines += ["Not run.", ""]
            continue
        found, figures = _version(rows, tasks, version, output)
        lines += found
        written += figures
    lines += ["## What was run", "", *_runs(rows)]
    path = output / "report.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [path, *written]


def _version(
    rows: Sequence[Row], tasks: Sequence[TaskNumbers], version: Version, output: Path
) -> tuple[list[str], list[Path]]:
    lines, figures = [], []
    for form in FORMS:
        lines += [f"### {_FORMS[form]}", "", *_overall(rows, tasks, form), ""]
        lines += ["Tasks within a factor of the best, in percent:", ""]
        lines += [*_profiles(tasks, form), ""]
        figure = output / f"profiles-{version}-{form}.png"
        figures.append(draw_profiles(figure, [(c, ratios(tasks, form, c)) for c in _COSTS]))
        lines += [f"![performance profiles]({figure.name})", ""]
    lines += ["### Where mlhf stands, peers tuned by task", "", *_standing(tasks), ""]
    lines += _learned(tasks)
    lines += ["### Samples and seconds to the target, peers tuned by task", ""]
    for cost in _COSTS:
        lines += [*_to_target(tasks, cost), ""]
    lines += ["### Final training losses, peers tuned by task", "", *_finals(tasks), ""]
    return lines, figures


def _overall(rows: Sequence[Row], tasks: Sequence[TaskNumbers], form: Form) -> list[str]:
    profile = {cost: ratios(tasks, form, cost) for cost in _COSTS}
    found = []
    for each in CONTENDERS:
        own = profile["samples"].get(each.name)
        if own is None:
            continue
        reached = sum(map(math.isfinite, own.values()))
        row = {"optimizer": each.name}
        if form == "fixed":
            row["setting"] = _setting(each, fixed_setting(rows, each))
        row["reached"] = f"{reached} of {len(own)}"
        for cost in _COSTS:
            mean = geometric_mean(tasks, (form, each.name), ("tuned", REFERENCE), cost)
            row[f"{cost}, geometric mean"] = str(mean)
            row[f"area by {cost}"] = f"{area(profile[cost][each.name]):.2f}"
        found.append(row)
    return markdown(found)


def _profiles(tasks: Sequence[TaskNumbers], form: Form) -> list[str]:
    found = []
    for cost in _COSTS:
        for name, of_tasks in ratios(tasks, form, cost).items():
            shares = {f"{f:g} ×": f"{100 * share_within(of_tasks, f):.0f}" for f in _FACTORS}
            found.append({"optimizer": name, "by": cost, **shares})
    return markdown(found)


def _standing(tasks: Sequence[TaskNumbers]) -> list[str]:
    """Return a row a task: the candidate's place, and its cost over the fastest peer's."""
    found, places = [], {cost: Counter[str]() for cost in _COSTS}
    for numbers in tasks:
        if CANDIDATE not in numbers.contenders:
            continue
        row = {"task": numbers.name.rpartition("-")[0], "target": f"{numbers.target:.3g}"}
        own = numbers.reached("tuned", CANDIDATE)
        for cost in _COSTS:
            place = place_of(numbers, "tuned", cost, CANDIDATE)
            told = "missed" if place is None else _ORDINALS.get(place, "behind")
            places[cost][told] += 1
            row[f"by {cost}"] = told
            peer = fastest_peer(numbers, "tuned", cost)
            if peer is not None and own is not None and not own.missed:
                mine = (own.samples if cost == "samples" else own.seconds).mean
                row[f"{cost} over the best peer's"] = f"{mine / peer[1]:.2f} ({peer[0]})"
            else:
                row[f"{cost} over the best peer's"] = "–"
        peers = [n for n in numbers.curves["tuned"] if n not in _OURS]
        row["peers"] = str(len(peers))
        found.append(row)
    counted = [
        f"by {cost}: " + ", ".join(f"{n} {what}" for what, n in sorted(of.items()))
        for cost, of in places.items()
        if of
    ]
    return [*markdown(found), "", "; ".join(counted).capitalize() + "."]


def _learned(tasks: Sequence[TaskNumbers]) -> list[str]:
    """Return what the learned part is worth: the candidate's cost over its control's."""
    found = []
    for cost in _COSTS:
        mean = geometric_mean(tasks, ("tuned", CANDIDATE), ("tuned", CONTROL), cost)
        if mean.tasks:
            found.append(f"{mean} of its {cost}")
    if not found:
        return []
    of = f"Beside `{CONTROL}`, its control with no learned part,"
    return [f"{of} `{CANDIDATE}` takes {' and '.join(found)} ({mean.tasks} tasks).", ""]


_OURS = {each.name for each in CONTENDERS if each.candidate}


def _to_target(tasks: Sequence[TaskNumbers], cost: Cost) -> list[str]:
    found = []
    for each in CONTENDERS:
        row = {f"{cost} to the target": each.name}
        for numbers in tasks:
            reached = numbers.reached("tuned", each.name)
            if reached is None:
                told = "–"
            elif reached.missed:
                told = f"missed ({reached.missed} of {reached.seconds.count})"
            elif cost == "samples":
                told = f"{reached.samples.mean:,.0f}"
            else:
                told = f"{reached.seconds.mean:.3g}"
            row[numbers.name.rpartition("-")[0]] = told
        if set(list(row.values())[1:]) != {"–"}:
            found.append(row)
    return markdown(found)


def _finals(tasks: Sequence[TaskNumbers]) -> list[str]:
    found = []
    for each in CONTENDERS:
        row = {"optimizer": each.name}
        for numbers in tasks:
            told = "–"
            if each.name in numbers.curves["tuned"]:
                value = numbers.final("tuned", each.name)
                seeds = len(numbers.curves["tuned"][each.name])
                setting = numbers.settings["tuned"][each.name]
                shown = f"{value:.3g}" if math.isfinite(value) else "diverged"
                told = f"{shown} [{seeds}]" + _told(each, setting)
            row[numbers.name.rpartition("-")[0]] = told
        if set(list(row.values())[1:]) != {"–"}:
            found.append(row)
    return [
        *markdown(found),
        "",
        "In brackets the number of seeds, after it the setting that was chosen.",
    ]


def _told(each: Contender, setting: int) -> str:
    return "" if len(each.settings) == 1 else f" {_setting(each, setting)}"


def _setting(each: Contender, setting: int | None) -> str:
    if setting is None:
        return "–"
    params = {k: v for k, v in each.settings[setting].items() if k != "schedule"}
    return ", ".join(f"{k}={short(v)}" for k, v in params.items()) or "as it comes"


def _looks(output: Path) -> list[str]:
    found = looked.looks(output)
    if not found:
        return ["Nobody has looked at them yet."]
    by_task: dict[str, list[str]] = {}
    for entry in found:
        by_task.setdefault(entry["task"], []).append(f"{entry['at'][:10]} ({entry['why']})")
    return ["Looked at:", ""] + [f"- {task}: {', '.join(of)}" for task, of in by_task.items()]


def _runs(rows: Sequence[Row]) -> list[str]:
    """Return how many runs there are of each, and by which code the candidate was made."""
    found = []
    for each in CONTENDERS:
        own = [row for row in rows if row.contender == each.name]
        if own:
            tried = Counter(row.task for row in own if row.tuning).values()
            found.append(
                {
                    "optimizer": each.name,
                    "runs": str(len(own)),
                    "settings tried a task": "–" if not tried else f"{min(tried)} to {max(tried)}",
                    "diverged or failed": str(sum(row.status != "succeeded" for row in own)),
                    "code": ", ".join(f"{c}: {n}" for c, n in Counter(r.code for r in own).items())
                    if each.candidate
                    else "–",
                }
            )
    return markdown(found)
