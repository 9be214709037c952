"""Write the tables of docs/results/gpu/README.md from the JSON files beside it.

python -m bench.gpu.report docs/results/gpu
"""

import argparse
import json
from pathlib import Path
from typing import Any

from bench.gpu.cifar import TARGETS

_HEAD = """# On a GPU

`bench/gpu.sh` writes this folder; `python -m bench.gpu.report` writes this page from it.
{machine}. One run each; a virtual machine whose host side is slow, so small networks are bound by
launches, and ratios to AdamW on them say little about another machine.

## Tests

`pytest -m gpu` ({tests}).
"""


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"entries": {}}
    return found


def _steps(entries: dict[str, Any]) -> list[str]:
    cases = list(dict.fromkeys(name.rpartition(": ")[0] for name in entries))
    optimizers = list(dict.fromkeys(name.rpartition(": ")[2] for name in entries))
    lines = [
        "## Step times",
        "",
        "Milliseconds a step (mean), in AdamW's steps, and the peak of memory beyond the model's "
        "own in MB; by CUDA events (`bench/gpu/steps.py`).",
        "",
        "| optimizer | " + " | ".join(cases) + " |",
        "|---|" + "---|" * len(cases),
    ]
    for optimizer in optimizers:
        cells = []
        for case in cases:
            entry = entries.get(f"{case}: {optimizer}")
            if entry is None:
                cells.append("not run")
            elif "error" in entry:
                cells.append(entry["error"].partition(":")[0])
            else:
                # The base's own entry may have been measured after this one.
                base = entries[f"{case}: adamw"]["mean_ms"]
                times = f"{entry['mean_ms']:.1f}, {entry['mean_ms'] / base:.1f}x"
                cells.append(f"{times}, {entry['peak_mb']:,}")
        lines.append(f"| {optimizer} | " + " | ".join(cells) + " |")
    return lines


def _cifar(entries: dict[str, Any]) -> list[str]:
    lines = [
        "## CIFAR-10",
        "",
        "ResNet-18, batch 512: training seconds to a test accuracy, one seed "
        "(`bench/gpu/cifar.py`).",
        "",
        "| optimizer | epochs | best | " + " | ".join(f"{t:.0%}" for t in TARGETS) + " |",
        "|---|---|---|" + "---|" * len(TARGETS),
    ]
    for name, entry in entries.items():
        if "error" in entry:
            lines.append(f"| {name} | {entry['error'].partition(':')[0]} |" + " |" * 6)
            continue
        reached = [entry["seconds_to"][str(target)] for target in TARGETS]
        cells = ["missed" if seconds is None else f"{seconds:.1f}" for seconds in reached]
        lines.append(
            f"| {name} | {entry['epochs']} of {entry['of']} | {entry['best']:.3f} | "
            + " | ".join(cells)
            + " |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    steps, cifar = _read(folder / "steps.json"), _read(folder / "cifar.json")
    machine = steps["machine"]
    tests = (folder / "tests.txt").read_text().strip().splitlines()[-1].strip("= ")
    head = _HEAD.format(
        machine=f"{machine['device']}, torch {machine['torch']}, mlhf {machine['mlhf']}",
        tests=tests,
    )
    lines = [*head.splitlines(), "", *_steps(steps["entries"]), "", *_cifar(cifar["entries"])]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
