"""What runs left: kept line by line, tuned, as a table, and as curves of work and precision."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from bench.science.contenders import CONTENDERS
from bench.science.published import PUBLISHED, published_table

TUNED_ON = 100  # a seed that no other number uses
Result = dict[str, Any]
KEYS = ("problem", "contender", "setting", "seed", "seconds")


def read(file: Path) -> list[Result]:
    """Return the runs of a file; a line that an interruption cut short is left out."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def add(file: Path, result: Result) -> None:
    """Append a run, on a line of its own whatever an interruption left."""
    file.parent.mkdir(parents=True, exist_ok=True)
    cut = file.exists() and not file.read_bytes().endswith(b"\n")
    with file.open("a") as out:
        out.write("\n" * cut + json.dumps(result) + "\n")


def tuned(results: Iterable[Result], problem: str, contender: str) -> int | None:
    """Return the setting with the least error on the seed for tuning; None until all have run."""
    settings = CONTENDERS[contender]
    if len(settings) == 1:
        return 0
    errors = {
        r["setting"]: final(r)
        for r in results
        if (r["problem"], r["contender"], r["seed"]) == (problem, contender, TUNED_ON)
    }
    return min(errors, key=errors.__getitem__) if len(errors) == len(settings) else None


def final(result: Result) -> float:
    """Return a run's last error; infinite where that is no number."""
    error = float(result["curve"][-1][2])
    return error if math.isfinite(error) else math.inf


def runs(results: list[Result], problem: str, contender: str) -> list[Result]:
    """Return the runs that count: not those of tuning."""
    return [
        r
        for r in results
        if (r["problem"], r["contender"]) == (problem, contender) and r["seed"] != TUNED_ON
    ]


def table(results: list[Result], problems: Iterable[str]) -> str:
    """Return the medians over seeds, with their range and number, as Markdown."""
    problems = list(problems)
    rows = ["| | " + " | ".join(problems) + " |", "|---" * (len(problems) + 1) + "|"]
    best = {}
    cells: dict[tuple[str, str], list[float]] = {}
    for problem in problems:
        for contender in CONTENDERS:
            cells[contender, problem] = sorted(map(final, runs(results, problem, contender)))
        medians = [median(e) for (_, p), e in cells.items() if p == problem and e]
        best[problem] = min(medians, default=math.nan)
    for contender in CONTENDERS:
        if not any(cells[contender, problem] for problem in problems):
            continue
        row = [_cell(cells[contender, problem], best[problem]) for problem in problems]
        rows.append(f"| {contender} | " + " | ".join(row) + " |")
    return "\n".join(rows)


def _cell(errors: list[float], best: float) -> str:
    if not errors:
        return "–"
    middle = f"{median(errors):.1e}"
    if median(errors) == best:
        middle = f"**{middle}**"
    return f"{middle} ({errors[0]:.0e} to {errors[-1]:.0e}, {len(errors)})"


def settings_table(results: list[Result], problems: Iterable[str]) -> str:
    """Return the setting that each contender was given on each problem, as Markdown."""
    problems = list(problems)
    rows = ["| | " + " | ".join(problems) + " |", "|---" * (len(problems) + 1) + "|"]
    for contender, settings in CONTENDERS.items():
        if len(settings) == 1:
            continue
        cells = []
        for problem in problems:
            setting = tuned(results, problem, contender)
            cells.append("–" if setting is None else _told(contender, setting))
        if all(cell == "–" for cell in cells):
            continue
        rows.append(f"| {contender} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _told(contender: str, index: int) -> str:
    setting = CONTENDERS[contender][index]
    told = {k: v for k, v in setting.params.items() if k in ("lr", "damping", "tau")}
    if setting.first:
        told |= {"Adam's share": setting.first, "its lr": setting.first_lr}
    return ", ".join(f"{k} {v:g}" for k, v in told.items())


def median_curve(found: list[Result]) -> list[tuple[float, float]]:
    """Return (seconds, median error), at the times of the first run."""
    if not found:
        return []

    def at(result: Result, second: float) -> float:
        before = [e for t, _, e in result["curve"] if t <= second + 1e-9]
        return float(before[-1] if before else result["curve"][0][2])

    return [(t, median(at(r, t) for r in found)) for t, _, _ in found[0]["curve"]]


def draw(results: list[Result], problem: str, file: Path) -> None:
    """Draw the median error of each contender over CPU seconds, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = problem  # the same file each time
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for contender in CONTENDERS:
        curve = median_curve(runs(results, problem, contender))
        if curve:
            times, errors = zip(*curve, strict=True)
            axes.plot(times, errors, label=contender, linewidth=2.5 if "gauss" in contender else 1)
    axes.set(xscale="log", yscale="log", xlabel="CPU seconds", ylabel="relative L2 error")
    axes.set_title(problem)
    axes.grid(alpha=0.3)
    if axes.get_lines():
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def report(results: list[Result], problems: list[str], folder: Path, note: str) -> None:
    """Write the tables and drawings of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    published = {
        problem: {
            contender: _cell(errors, math.nan)
            for contender in CONTENDERS
            if (errors := sorted(map(final, runs(results, problem, contender))))
        }
        for problem in problems
        if problem in PUBLISHED
    }
    text = [
        "# Scientific tasks: errors at equal CPU seconds",
        note,
        "Median relative L2 error over the seeds (least to largest, number of seeds):",
        table(results, problems),
        *(["Beside published errors:", published_table(published)] if published else []),
        "Settings, each the best of its grid on another seed:",
        settings_table(results, problems),
        *(f"![{problem}]({problem}.svg)" for problem in problems),
    ]
    (folder / "README.md").write_text("\n\n".join(text) + "\n")
    for problem in problems:
        draw(results, problem, folder / f"{problem}.svg")
