"""How pages write numbers, sizes and times."""

from datetime import datetime
from urllib.parse import urlencode

from markupsafe import Markup

from mlhf_service.database import now
from mlhf_service.kit.flat import flat
from mlhf_service.runs.metrics import label
from mlhf_service.runs.schemas import RunItem

NONE = "–"
_DAY = 86_400
_CELL, _BEST_CELL, _END = (
    Markup('<td class="num">'),
    Markup('<td class="num best">'),
    Markup("</td>"),
)
_SMALL, _END_SMALL = Markup(" <small>"), Markup("</small></td>")


def number(value: float | str | None) -> str:
    """Four significant digits; what is not finite by its name."""
    if value is None:
        return NONE
    return value if isinstance(value, str) else f"{value:.4g}"


def percent(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return number(value)
    return f"{100 * value:.1f} %"


def count(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}×"


def duration(seconds: float | None) -> str:
    """``0.0521 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(value: int) -> str:
    """Bytes in binary units."""
    if value < 1024:
        return f"{value} B"
    scaled = float(value)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        scaled /= 1024
        if scaled < 1024 or unit == "TiB":
            break
    return f"{scaled:.1f} {unit}"


def when(at: datetime | None) -> Markup | str:
    """How long ago, or the date; exact to the machine and in the tooltip."""
    if at is None:
        return NONE
    passed = (now() - at).total_seconds()
    if passed < 60:
        text = "just now"
    elif passed < 3600:
        text = f"{passed // 60:.0f} min ago"
    elif passed < _DAY:
        text = f"{passed // 3600:.0f} h ago"
    else:
        text = f"{at:%Y-%m-%d %H:%M}"
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    # Digits and words of ours: there is nothing to escape, and lists have hundreds of these.
    return Markup(f'<time datetime="{at.isoformat()}" title="{exact}">{text}</time>')  # noqa: S704


def compared_cell(text: str, to_best: float | None) -> Markup:
    """A number of a run in the table of a comparison, and its ratio to the best run's.

    Here and not in the template: there are hundreds on a page, and a macro takes longer.
    """
    if to_best is None:
        return _CELL + text + _END
    cell = _BEST_CELL if 0.9999 < to_best < 1.0001 else _CELL
    return cell + text + _SMALL + ratio(to_best) + _END_SMALL  # all that is text is escaped


def measured(value: float | str | None, metric: str) -> str:
    """A measurement as its metric is written: a share in percent, else a number."""
    return percent(value) if metric.endswith(("accuracy", "precision")) else number(value)


def latest(run: RunItem, metric: str) -> str:
    """What a run measured last of a metric."""
    found = (run.summary or {}).get(metric)
    if found is None:
        return NONE
    return "NaN" if run.diverged_at else measured(found.last, metric)


def fraction(run: RunItem) -> float:
    """How much of a run is done."""
    return 1.0 if run.status == "succeeded" else float((run.progress or {}).get("fraction", 0.0))


def words(name: str) -> str:
    """``train_loss`` → ``train loss``."""
    return label(name)


def query(**values: object) -> str:
    """A query string of what is given; lists repeat their name."""
    return urlencode({k: v for k, v in values.items() if v not in (None, "", [])}, doseq=True)


FILTERS = {
    one.__name__: one
    for one in (
        number,
        percent,
        count,
        ratio,
        duration,
        size,
        when,
        words,
        flat,
        measured,
        latest,
        fraction,
    )
}
