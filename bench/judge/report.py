"""The report: criteria, tables and figures of whatever has been run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import figures
from bench.harness.contract import Context, Scale
from bench.judge.contenders import contender
from bench.judge.criteria import Criterion, decide
from bench.judge.export import export
from bench.judge.lineage import overlap
from bench.judge.measures import (
    Estimate,
    estimate,
    final,
    integral,
    train_losses,
)
from bench.judge.numbers import as_json
from bench.judge.overview import overview, together
from bench.judge.results import Reached, TaskResults, collect
from bench.judge.runs import short
from bench.judge.tasks import BenchmarkTask, tasks, transfers
from mlhf.core import atomic_files
from mlhf.core.events import encode

_PERCENT = ("50", "75", "100")
_MARKS = 6  # epochs at which a table gives the loss

Table = list[dict[str, str]]


def report(context: Context, scale: Scale) -> list[Path]:
    """Write ``report.md``, ``numbers.json``, ``curves.csv.gz`` and the figures; return them."""
    judged = [collect(context, task) for task in tasks(scale)]
    transferred = [collect(context, task) for task in transfers(scale)]
    every = [*tasks(scale), *transfers(scale)]
    criteria = decide(judged, transferred)
    written = []
    for results in judged:
        curves = {n: list(of.values()) for n, of in results.curves.items()}
        if not curves:
            continue
        for x, name in (("samples", "samples"), ("wall_seconds", "seconds")):
            path = context.output / f"{results.task.name}-{name}.png"
            written.append(figures.comparison(path, curves, x))  # type: ignore[arg-type]
    lines = [f"# Judged at scale {scale}", "", *_preface(context, every), "", *_criteria(criteria)]
    lines += ["", "## Side by side", "", "Mean training losses at the ends of epochs."]
    for group in together(judged):
        lines += ["", *markdown(overview(group))]
    for results in judged:
        lines += ["", *_task(results)]
    lines += ["", *_transfers(transferred)]
    document, numbers = context.output / "report.md", context.output / "numbers.json"
    document.write_text("\n".join(lines) + "\n", encoding="utf-8")
    atomic_files.write(numbers, encode(as_json(criteria, [*judged, *transferred])))
    table = export(context.output / "curves.csv.gz", [*judged, *transferred])
    return [document, numbers, table, *written]


def _preface(context: Context, every: Sequence[BenchmarkTask]) -> list[str]:
    seen = [(task.name, overlap(context.meta_checkpoint, task)) for task in every]
    overlaps = "; ".join(f"{name}: {' and '.join(what)}" for name, what in seen if what)
    return [
        f"Seeds {', '.join(map(str, context.seeds))}, of which those that were run count. Means "
        "with 95 % intervals over seeds (Student's t). A target is the mean training loss that "
        "tuned AdamW has at 50, 75 and 100 % of its horizon; between two evaluations the log "
        "loss is taken as a straight line; a miss is infinite and so is a mean with one. "
        "A family meets a criterion if all its tasks do.",
        "",
        f"Meta-training saw, by the meta-checkpoint's lineage: {overlaps or 'none of it'}.",
    ]


def _criteria(criteria: Sequence[Criterion]) -> list[str]:
    rows = [
        {
            "criterion": each.name,
            "verdict": _verdict(each.met),
            "needed": str(each.needed),
            "by family": ", ".join(f"{f}: {_verdict(m)}" for f, m in each.families.items()),
        }
        for each in criteria
    ]
    lines = ["## Criteria", "", *markdown(rows)]
    for each in criteria:
        lines += ["", f"### {each.name}: {_verdict(each.met)}", ""]
        found = [
            {"task": f.where, "verdict": _verdict(f.met), "numbers": f.numbers}
            for f in each.findings
        ]
        lines += markdown(found)
    return lines


def _task(results: TaskResults) -> list[str]:
    spec = results.task.spec
    lines = [
        f"## {results.task.name}",
        "",
        f"{spec.model.name} on {spec.dataset.name} {_params(spec.dataset.params)}, "
        f"{results.task.epochs:g} epochs, batch {spec.batch_size}.",
    ]
    if not results.curves:
        return [*lines, "", "Not run."]
    lines += ["", *markdown(_finals(results)), "", "Training loss at the end of an epoch:", ""]
    lines += markdown(_epochs(results))
    if results.targets:
        goals = ", ".join(f"{p} %: {v:.4g}" for p, v in results.targets.items())
        lines += ["", f"To AdamW's loss ({goals}) over the task's horizon:", ""]
        lines += markdown(_to_target(results))
        lines += ["", "To the same where all choose among the horizons they were run over:", ""]
        lines += markdown(_fastest(results))
    for name in ("samples", "seconds"):
        lines += ["", f"![by {name}]({results.task.name}-{name}.png)"]
    return lines


def _finals(results: TaskResults) -> Table:
    rows = []
    for name, of in results.curves.items():
        curves = list(of.values())
        known = results.pinned.get(name, {})
        timing = results.timing.get(name)
        as_run = estimate([1e3 * c.seconds / max(c.steps, 1) for c in curves])
        rows.append(
            {
                "optimizer": name,
                "setting": _params(known.get("setting", {})) or "defaults",
                "edge of grid": ", ".join(known.get("edge", [])) or "–",
                "seeds": str(len(curves)),
                "final training loss": _loss([final(c) for c in curves]),
                "integrated log loss": _loss([integral(c) for c in curves]),
                "running loss": str(estimate([c.final("running_loss") for c in curves])),
                "test loss": str(estimate([c.final("test_loss") for c in curves])),
                "test accuracy": str(estimate([c.final("test_accuracy") for c in curves])),
                "ms a step, as run": str(as_run),
                "in turns, first 240": "–" if timing is None else f"{timing.mean:.2f}",
            }
        )
    return rows


def _epochs(results: TaskResults) -> Table:
    rows = []
    for name, of in results.curves.items():
        losses = [train_losses(c) for c in of.values()]
        count = max(len(each) for each in losses)
        row = {"optimizer": name}
        for mark in _marks(round(results.task.epochs)):
            at = [each[mark] if mark < len(each) else float("inf") for each in losses]
            row[f"epoch {mark}"] = _loss(at) if mark < count else "–"
        rows.append(row)
    return rows


def _to_target(results: TaskResults) -> Table:
    rows = []
    for name in results.curves:
        row = {"optimizer": name}
        found = {p: results.reached(name, p) for p in _PERCENT}
        row |= {f"samples to {p} %": _reached(r, "samples") for p, r in found.items()}
        row |= {f"seconds to {p} %": _reached(r, "seconds") for p, r in found.items()}
        rows.append(row)
    return rows


def _fastest(results: TaskResults) -> Table:
    rows = []
    for name in results.curves:
        row = {"optimizer": name}
        for percent in _PERCENT:
            found = results.fastest(name, percent)
            text = _reached(found, "seconds")
            if found is not None and not found.missed:
                text += f" at {found.factor:g} ×"
            row[f"seconds to {percent} %"] = text
        chose = name in results.chosen
        row["horizons"] = "chosen" if chose else ("not run" if contender(name).scheduled else "–")
        rows.append(row)
    return rows


def _transfers(transferred: Sequence[TaskResults]) -> list[str]:
    lines = ["## Transfer", ""]
    rows = [
        {
            "task": r.task.name,
            "what differs": r.task.kind,
            "optimizer": name,
            "seeds": str(len(of)),
            "final training loss": _loss([final(c) for c in of.values()]),
            "integrated log loss": _loss([integral(c) for c in of.values()]),
            "test loss": str(estimate([c.final("test_loss") for c in of.values()])),
            "test accuracy": str(estimate([c.final("test_accuracy") for c in of.values()])),
            "seconds": str(estimate([c.seconds for c in of.values()])),
        }
        for r in transferred
        for name, of in r.curves.items()
    ]
    return [*lines, *(markdown(rows) if rows else ["Not run."])]


def _reached(reached: Reached | None, what: str) -> str:
    if reached is None:
        return "not run"
    value: Estimate = getattr(reached, what)
    if reached.missed:
        return f"missed ({reached.missed} of {value.count})"
    if what == "samples":
        return f"{value.mean:,.0f}" + (f" ± {value.half:,.0f}" if value.count > 1 else "")
    return str(value)


def _loss(values: Sequence[float]) -> str:
    found = estimate(values)
    bad = sum(v == float("inf") for v in values)
    return f"diverged ({bad} of {len(values)})" if bad else str(found)


def _marks(epochs: int) -> list[int]:
    """Return some epochs, evenly spread, the first and the last among them."""
    return sorted({1, *(round(epochs * i / (_MARKS - 1)) for i in range(1, _MARKS))})


def _params(params: Any) -> str:
    return ", ".join(f"{k}={short(v)}" for k, v in params.items())


def _verdict(met: bool | None) -> str:
    return {True: "met", False: "**missed**", None: "not run"}[met]


def markdown(rows: Table) -> list[str]:
    """Return a table's lines."""
    if not rows:
        return ["Not run."]
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(row[c] for c in columns) + " |" for row in rows]
