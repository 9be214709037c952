"""How our charts look. matplotlib is imported where one is drawn, and used without pyplot."""

import io
import math
import threading
from typing import Any, Literal

# Okabe and Ito's palette, which colour-blind readers can distinguish.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (6, 2, 1, 2)))
AXIS_LABELS = {
    "samples": "samples",
    "steps": "steps",
    "epochs": "epochs",
    "wall_seconds": "training time (s)",
    "cpu_seconds": "CPU time of training (s)",
}

_GRID, _TEXT = "#e3e3e3", "#333333"
_LARGEST, _SMALLEST = 1e300, 1e-300  # of an axis
_LOCK = threading.Lock()  # fonts are shared, and drawing with them is not thread-safe


def style_of(index: int) -> tuple[str, Any]:
    """Colour and dashes of the line number ``index``; the first 28 differ from each other."""
    return COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]


def new_figure(width: float, height: float, dpi: int = 144) -> Any:
    """Make an empty figure; ``width`` and ``height`` are in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")


def dress(axes: Any, xlabel: str, ylabel: str) -> None:
    """Give axes their labels, a quiet grid, and no box."""
    axes.set_xlabel(xlabel, color=_TEXT)
    axes.set_ylabel(ylabel, color=_TEXT)
    axes.grid(True, which="major", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_TEXT, which="both", labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9a9a9a")
    axes.margins(x=0.01)


def log_ticks(axes: Any, start: float) -> float | None:
    """Log scale on y, with plain numbers also where less than a decade is shown.

    Args:
        start: The largest initial loss. Curves that diverge leave the picture above it, so
            that the others stay distinguishable.

    Returns:
        The upper edge where curves leave the picture; ``mark_above`` shows which do.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    top = 8 * start if high > 8 * start > low else None
    if top is not None:
        axes.set_ylim(top=top)
        high = top
    if low <= 0:
        return top
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 300 else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return top


def mark_above(axes: Any, x: Any, y: Any, top: float | None, colour: str) -> None:
    """Mark at the picture's upper edge where a curve leaves it."""
    above = [] if top is None else [i for i, v in enumerate(y.tolist()) if top < v < math.inf]
    if not above:
        return
    known = axes.get_legend_handles_labels()[1]
    label = "beyond the picture"
    axes.plot(
        float(x[above[0]]),
        top,
        "^",
        color=colour,
        markersize=6,
        clip_on=False,
        zorder=5,
        linestyle="none",
        label="_" + label if label in known else label,
    )


def short_ticks(axes: Any) -> None:
    """Write 50k for 50,000 below the axis."""
    from matplotlib.ticker import EngFormatter

    if max(abs(bound) for bound in axes.get_xlim()) >= 10_000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def render(figure: Any, form: Literal["png", "svg"] = "png") -> bytes:
    """Draw the figure to PNG or SVG bytes, the same for the same figure."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    _bound(figure)
    out = io.BytesIO()
    with _LOCK, rc_context({"svg.hashsalt": "mlhf"}):  # else ids in an SVG are random
        if form == "png":
            canvas: Any = FigureCanvasAgg(figure)
            canvas.print_png(out, metadata={"Software": "mlhf"})
        else:
            canvas = FigureCanvasSVG(figure)
            canvas.print_svg(out, metadata={"Date": None, "Creator": "mlhf"})
    return out.getvalue()


def _bound(figure: Any) -> None:
    """Keep axes within what ticks can be computed for; what lies beyond is cut off."""
    for panel in figure.axes:
        for name in ("x", "y"):
            low, high = getattr(panel, f"get_{name}lim")()
            kept = [min(max(one, -_LARGEST), _LARGEST) for one in (low, high)]
            if kept != [low, high]:
                least = 0.0 if getattr(panel, f"get_{name}scale")() == "linear" else _SMALLEST
                bounds = (kept[0] if kept[0] < kept[1] else least, kept[1])
                getattr(panel, f"set_{name}lim")(*bounds)


def render_small(figure: Any) -> bytes:
    """Draw the figure to PNG bytes with a palette: a third of the size, to be kept in git."""
    from PIL import Image

    with Image.open(io.BytesIO(render(figure))) as image:
        out = io.BytesIO()
        image.convert("RGB").quantize(128).save(out, format="PNG", optimize=True)
    return out.getvalue()


def plain(text: str, length: int) -> str:
    """Text that matplotlib does not take for mathematics, at most ``length`` characters."""
    text = text if len(text) <= length else text[: length - 1] + "…"
    return text.replace("$", r"\$")
