"""The report: aims, tables and figures of whatever has been run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import figures
from bench.harness.contract import Context, Scale
from bench.judge.aims import Aim, decide
from bench.judge.export import export
from bench.judge.grids import entrant
from bench.judge.lineage import overlap
from bench.judge.measures import (
    Estimate,
    estimate,
    final,
    integral,
    train_losses,
)
from bench.judge.overview import overview, together
from bench.judge.results import Reached, TaskResults, collect
from bench.judge.runs import short
from bench.judge.tasks import Judged, tasks, transfers
from mlhf.core import atomic_files
from mlhf.core.events import encode

_PERCENT = ("50", "75", "100")
_MARKS = 6  # epochs at which a table gives the loss

Table = list[dict[str, str]]


def report(context: Context, scale: Scale) -> list[Path]:
    """Write ``report.md``, ``numbers.json``, ``curves.csv.gz`` and the figures; return them."""
    judged = [collect(context, j) for j in tasks(scale)]
    transferred = [collect(context, j) for j in transfers(scale)]
    every = [*tasks(scale), *transfers(scale)]
    aims = decide(judged, transferred)
    written = []
    for results in judged:
        curves = {n: list(of.values()) for n, of in results.curves.items()}
        if not curves:
            continue
        for x, name in (("samples", "samples"), ("wall_seconds", "seconds")):
            path = context.output / f"{results.judged.name}-{name}.png"
            written.append(figures.comparison(path, curves, x))  # type: ignore[arg-type]
    lines = [f"# Judged at scale {scale}", "", *_preface(context, every), "", *_aims(aims)]
    lines += ["", "## Side by side", "", "Mean training losses at the ends of epochs."]
    for group in together(judged):
        lines += ["", *_markdown(overview(group))]
    for results in judged:
        lines += ["", *_task(context, results)]
    lines += ["", *_transfers(transferred)]
    document, numbers = context.output / "report.md", context.output / "numbers.json"
    document.write_text("\n".join(lines) + "\n", encoding="utf-8")
    atomic_files.write(numbers, encode(_numbers(aims, [*judged, *transferred])))
    table = export(context.output / "curves.csv.gz", [*judged, *transferred])
    return [document, numbers, table, *written]


def _preface(context: Context, every: Sequence[Judged]) -> list[str]:
    seen = [(j.name, overlap(context.meta_checkpoint, j)) for j in every]
    said = "; ".join(f"{name}: {' and '.join(what)}" for name, what in seen if what)
    return [
        f"Seeds {', '.join(map(str, context.seeds))}, of which those that were run count. Means "
        "with 95 % intervals over seeds (Student's t). A target is the mean training loss that "
        "tuned AdamW has at 50, 75 and 100 % of its horizon; between two evaluations the log "
        "loss is taken as a straight line; a miss is infinite and so is a mean with one. "
        "A family meets an aim if all its tasks do.",
        "",
        f"Meta-training saw, by the meta-checkpoint's lineage: {said or 'none of it'}.",
    ]


def _aims(aims: Sequence[Aim]) -> list[str]:
    rows = [
        {
            "aim": aim.name,
            "verdict": _verdict(aim.met),
            "needed": str(aim.needed),
            **{"by family": ", ".join(f"{f}: {_verdict(m)}" for f, m in aim.families.items())},
        }
        for aim in aims
    ]
    lines = ["## Aims", "", *_markdown(rows)]
    for aim in aims:
        lines += ["", f"### {aim.name}: {_verdict(aim.met)}", ""]
        found = [
            {"task": f.where, "verdict": _verdict(f.met), "numbers": f.numbers}
            for f in aim.findings
        ]
        lines += _markdown(found)
    return lines


def _task(context: Context, results: TaskResults) -> list[str]:
    task = results.judged.task
    lines = [
        f"## {results.judged.name}",
        "",
        f"{task.model.name} on {task.dataset.name} {_given(task.dataset.params)}, "
        f"{results.judged.epochs:g} epochs, batch {task.batch_size}.",
    ]
    if not results.curves:
        return [*lines, "", "Not run."]
    lines += ["", *_markdown(_finals(results)), "", "Training loss at the end of an epoch:", ""]
    lines += _markdown(_epochs(results))
    if results.targets:
        goals = ", ".join(f"{p} %: {v:.4g}" for p, v in results.targets.items())
        lines += ["", f"To AdamW's loss ({goals}) over the task's horizon:", ""]
        lines += _markdown(_to_target(results))
        lines += ["", "To the same where all choose among the horizons they were run over:", ""]
        lines += _markdown(_fastest(results))
    for name in ("samples", "seconds"):
        lines += ["", f"![by {name}]({results.judged.name}-{name}.png)"]
    return lines


def _finals(results: TaskResults) -> Table:
    rows = []
    for name, of in results.curves.items():
        curves = list(of.values())
        known = results.pinned.get(name, {})
        pace = results.pace.get(name)
        as_run = estimate([1e3 * c.seconds / max(c.steps, 1) for c in curves])
        rows.append(
            {
                "optimizer": name,
                "setting": _given(known.get("setting", {})) or "defaults",
                "edge of grid": ", ".join(known.get("edge", [])) or "–",
                "seeds": str(len(curves)),
                "final training loss": _ended([final(c) for c in curves]),
                "integrated log loss": _ended([integral(c) for c in curves]),
                "running loss": str(estimate([c.final("running_loss") for c in curves])),
                "test loss": str(estimate([c.final("test_loss") for c in curves])),
                "test accuracy": str(estimate([c.final("test_accuracy") for c in curves])),
                "ms a step, as run": str(as_run),
                "in turns, first 240": "–" if pace is None else f"{pace.mean:.2f}",
            }
        )
    return rows


def _epochs(results: TaskResults) -> Table:
    rows = []
    for name, of in results.curves.items():
        losses = [train_losses(c) for c in of.values()]
        count = max(len(each) for each in losses)
        row = {"optimizer": name}
        for mark in _marks(round(results.judged.epochs)):
            at = [each[mark] if mark < len(each) else float("inf") for each in losses]
            row[f"epoch {mark}"] = _ended(at) if mark < count else "–"
        rows.append(row)
    return rows


def _to_target(results: TaskResults) -> Table:
    rows = []
    for name in results.curves:
        row = {"optimizer": name}
        found = {p: results.reached(name, p) for p in _PERCENT}
        row |= {f"samples to {p} %": _hit(r, "samples") for p, r in found.items()}
        row |= {f"seconds to {p} %": _hit(r, "seconds") for p, r in found.items()}
        rows.append(row)
    return rows


def _fastest(results: TaskResults) -> Table:
    rows = []
    for name in results.curves:
        row = {"optimizer": name}
        for percent in _PERCENT:
            found = results.fastest(name, percent)
            text = _hit(found, "seconds")
            if found is not None and not found.missed:
                text += f" at {found.factor:g} ×"
            row[f"seconds to {percent} %"] = text
        chose = name in results.chosen
        row["horizons"] = "chosen" if chose else ("not run" if entrant(name).scheduled else "–")
        rows.append(row)
    return rows


def _transfers(transferred: Sequence[TaskResults]) -> list[str]:
    lines = ["## Transfer", ""]
    rows = [
        {
            "task": r.judged.name,
            "what differs": r.judged.kind,
            "optimizer": name,
            "seeds": str(len(of)),
            "final training loss": _ended([final(c) for c in of.values()]),
            "integrated log loss": _ended([integral(c) for c in of.values()]),
            "test loss": str(estimate([c.final("test_loss") for c in of.values()])),
            "test accuracy": str(estimate([c.final("test_accuracy") for c in of.values()])),
            "seconds": str(estimate([c.seconds for c in of.values()])),
        }
        for r in transferred
        for name, of in r.curves.items()
    ]
    return [*lines, *(_markdown(rows) if rows else ["Not run."])]


def _numbers(aims: Sequence[Aim], every: Sequence[TaskResults]) -> dict[str, Any]:
    return {
        "aims": [
            {
                "aim": aim.name,
                "met": aim.met,
                "needed": aim.needed,
                "families": dict(aim.families),
                "tasks": [vars(f) for f in aim.findings],
            }
            for aim in aims
        ],
        "tasks": {r.judged.name: _of_task(r) for r in every if r.curves},
    }


def _of_task(results: TaskResults) -> dict[str, Any]:
    """Return settings, targets and, for each optimizer and seed, its curve and totals."""
    return {
        "targets": results.targets,
        "settings": results.pinned,
        "milliseconds": {name: vars(pace) for name, pace in results.pace.items()},
        "optimizers": {
            name: {
                "seeds": {
                    str(seed): {
                        "status": c.result["status"],
                        "seconds": c.seconds,
                        "steps": c.steps,
                        "final": final(c),
                        "integral": integral(c),
                        "points": c.points,
                    }
                    for seed, c in of.items()
                },
                "reached": {
                    p: {"own horizon": _plain(results.reached(name, p)),
                        "fastest": _plain(results.fastest(name, p))}
                    for p in results.targets
                },
            }
            for name, of in results.curves.items()
        },
    }  # fmt: skip


def _plain(reached: Reached | None) -> dict[str, Any] | None:
    if reached is None:
        return None
    return {
        "samples": vars(reached.samples),
        "seconds": vars(reached.seconds),
        "missed": reached.missed,
        "factor": reached.factor,
    }


def _hit(reached: Reached | None, what: str) -> str:
    if reached is None:
        return "not run"
    value: Estimate = getattr(reached, what)
    if reached.missed:
        return f"missed ({reached.missed} of {value.count})"
    if what == "samples":
        return f"{value.mean:,.0f}" + (f" ± {value.half:,.0f}" if value.count > 1 else "")
    return str(value)


def _ended(values: Sequence[float]) -> str:
    found = estimate(values)
    bad = sum(v == float("inf") for v in values)
    return f"diverged ({bad} of {len(values)})" if bad else str(found)


def _marks(epochs: int) -> list[int]:
    """Return some epochs, evenly spread, the first and the last among them."""
    return sorted({1, *(round(epochs * i / (_MARKS - 1)) for i in range(1, _MARKS))})


def _given(params: Any) -> str:
    return ", ".join(f"{k}={short(v)}" for k, v in params.items())


def _verdict(met: bool | None) -> str:
    return {True: "met", False: "**missed**", None: "not run"}[met]


def _markdown(rows: Table) -> list[str]:
    """Return a table's lines."""
    if not rows:
        return ["Not run."]
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(row[c] for c in columns) + " |" for row in rows]
