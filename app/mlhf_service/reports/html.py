"""A report as one HTML file: its figures are in it, and it loads nothing."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment

import mlhf
from mlhf_service.comparisons.schemas import Band, Comparison
from mlhf_service.runs.metrics import has_best, label
from mlhf_service.runs.schemas import MetricSummary, RunView

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #8885; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; background: #fff } pre { overflow-x: auto; background: #8882; padding: 1rem }
.note { border-left: 4px solid #c80; padding-left: .8rem } footer { color: #888; margin-top: 3rem }
</style></head><body>
<h1>{{ title }}</h1>
{% for note in notes %}<p class="note">{{ note }}</p>{% endfor %}
{% for figure in figures %}<p><img alt="{{ figure.alt }}"
  src="data:image/png;base64,{{ figure.data }}"></p>{% endfor %}
{% for table in tables %}<h2>{{ table.title }}</h2>
<table><thead><tr>{% for head in table.heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr>
</thead><tbody>{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}
</tr>{% endfor %}</tbody></table>{% endfor %}
{% for block in blocks %}<details><summary>{{ block.title }}</summary>
<pre>{{ block.text }}</pre></details>{% endfor %}
<footer>MLHF {{ version }}, {{ made }}</footer>
</body></html>
"""
_TEMPLATE = Environment(autoescape=True).from_string(_PAGE)

Table = dict[str, Any]


def run_report(run: RunView, picture: bytes) -> bytes:
    """A run: what it reached, its curves, its configuration and where it was trained."""
    facts = [
        ("status", run.status),
        ("model", run.model),
        ("data set", run.dataset_name),
        ("optimizer", run.optimizer),
        ("seed", run.seed),
        ("id", run.id),
        ("begun", run.started_at or run.created_at),
        ("ended", run.finished_at or "–"),
    ]
    facts += [(name.replace("_", " "), _text(value)) for name, value in (run.totals or {}).items()]
    measured = [
        (label(name), _text(one.last), *_best(name, one))
        for name, one in sorted((run.summary or {}).items())
    ]
    notes = []
    if run.error:
        notes.append(str(run.error.get("detail") or run.error.get("title")))
    return _render(
        run.name,
        notes,
        [{"alt": f"Curves of {run.name}", "data": _base64(picture)}],
        [
            {"title": "Measured", "heads": ["metric", "last", "best", "at step"], "rows": measured},
            {"title": "Run", "heads": ["", ""], "rows": facts},
        ],
        {"Configuration": run.config, "Environment": run.environment, "Data": run.data},
    )


def comparison_report(title: str, compared: Comparison, pictures: Sequence[bytes]) -> bytes:
    """A comparison: figures, groups over their seeds, every run, and reasons for caution."""
    loss, accuracy = label(compared.loss_metric), label(compared.accuracy_metric)
    heads = ["configuration", "seeds", f"final {loss}", f"best {loss}", f"final {accuracy}"]
    if compared.target is not None:
        heads += ["reached", "samples to target", "seconds to target"]
    groups = []
    for group in compared.groups:
        bands = (group.final_loss, group.best_loss, group.final_accuracy)
        row = [group.label, group.n, *map(_band, bands)]
        if group.to_target is not None:
            reached = group.to_target
            row += [reached.reached, _band(reached.samples), _band(reached.wall_seconds)]
        groups.append(row)
    runs = [
        [run.name, run.status, run.seed, _text(run.final_loss), _text(run.final_accuracy)]
        for run in compared.runs
    ]
    run_heads = ["run", "status", "seed", f"final {loss}", f"final {accuracy}"]
    return _render(
        title,
        [warning.message for warning in compared.warnings],
        [{"alt": f"{title}: {compared.metric}", "data": _base64(one)} for one in pictures],
        [
            {"title": "Configurations", "heads": heads, "rows": groups},
            {"title": "Runs", "heads": run_heads, "rows": runs},
        ],
        {},
    )


def _render(
    title: str,
    notes: Sequence[str],
    figures: Sequence[dict[str, str]],
    tables: Sequence[Table],
    blocks: dict[str, Any],
) -> bytes:
    shown = [
        {"title": name, "text": json.dumps(value, indent=2, ensure_ascii=False)}
        for name, value in blocks.items()
        if value
    ]
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return _TEMPLATE.render(
        title=title,
        notes=notes,
        figures=figures,
        tables=tables,
        blocks=shown,
        version=mlhf.__version__,
        made=made,
    ).encode()


def _best(metric: str, values: MetricSummary) -> tuple[str, str]:
    """The best value and its step; nothing where no value is better than another."""
    if not has_best(metric):
        return "–", "–"
    return _text(values.best), _text(values.best_step)


def _base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _band(band: Band) -> str:
    if band.mean is None:
        return "–"
    return _text(band.mean) + ("" if band.std is None else f" ± {band.std:.2g}")
