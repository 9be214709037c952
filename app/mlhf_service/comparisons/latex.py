"""A comparison as a table for a paper: a row a group, means and deviations over seeds."""

from mlhf.core.metrics import higher_is_better
from mlhf_service.comparisons.schemas import Band, Comparison
from mlhf_service.runs.metrics import label

_ESCAPES = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)


def to_latex(comparison: Comparison) -> bytes:
    """A ``tabular`` with the rules of the package booktabs; the best mean of a column is bold."""
    columns: list[tuple[str, list[Band | None]]] = [
        (f"final {comparison.loss_metric}", [g.final_loss for g in comparison.groups]),
        (f"final {comparison.accuracy_metric}", [g.final_accuracy for g in comparison.groups]),
    ]
    if comparison.target is not None:
        efforts = [group.to_target for group in comparison.groups]
        columns += [
            ("samples to target", [e.samples if e else None for e in efforts]),
            ("seconds to target", [e.wall_seconds if e else None for e in efforts]),
        ]
    cells = [_column(name, bands) for name, bands in columns]
    names = [_head(name) for name, _ in columns]
    lines = [
        r"% needs \usepackage{booktabs}; mean $\pm$ standard deviation over seeds",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) + 1)}}}",
        r"\toprule",
        rf"optimizer & seeds & {' & '.join(names)} \\",
        r"\midrule",
    ]
    for row, group in enumerate(comparison.groups):
        shown = [group.label.translate(_ESCAPES), str(group.n), *(column[row] for column in cells)]
        lines.append(rf"{' & '.join(shown)} \\")
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines).encode()


def _head(column: str) -> str:
    what, _, metric = column.partition(" ")
    return f"{what} {label(metric)}".translate(_ESCAPES)


def _column(name: str, bands: list[Band | None]) -> list[str]:
    means = [band.mean for band in bands if band is not None and band.mean is not None]
    best = (max if higher_is_better(name) else min)(means, default=None)
    return [_cell(band, band is not None and band.mean == best) for band in bands]


def _cell(band: Band | None, best: bool) -> str:
    if band is None or band.mean is None:
        return "--"
    mean = f"{band.mean:.4g}"
    deviation = "" if band.std is None else rf" \pm {band.std:.2g}"
    return rf"$\mathbf{{{mean}}}{deviation}$" if best else f"${mean}{deviation}$"
