"""Tune, judge and report on the wide benchmark.

    python -m bench.wide tune --settings 3 --minutes 9
    python -m bench.wide judge --seeds 2 --minutes 9
    python -m bench.wide judge --version judged --why "release 0.9" --minutes 9
    python -m bench.wide report

Each run is one line of ``docs/results/wide/runs.jsonl.gz``. What is there is not run again, so
that calls add up. The exit code is 0 when all is done, and 75 when time was up.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.harness.session import log, positive_int, stopper
from bench.wide.contenders import CONTENDERS, contender
from bench.wide.families import FAMILIES, tasks
from bench.wide.report import report
from bench.wide.runner import Place, judge, tune
from bench.wide.task import VERSIONS, WideTask
from mlhf.core.process import EXIT_INTERRUPTED, EXIT_OK, keep_freed_memory

_OUTPUT = Path("docs/results/wide")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.stage == "report":
        for path in report(options.output):
            log(f"wrote {path}")
        return EXIT_OK
    if options.version == "judged" and not options.why:
        parser.error("--version judged needs --why: who looks at it is written down")
    chosen = _tasks(parser, options)
    for name in options.only:
        if name not in {each.name for each in CONTENDERS}:
            parser.error(f"--only {name!r}: known are {', '.join(e.name for e in CONTENDERS)}")
    of = [contender(name) for name in options.only] or list(CONTENDERS)
    place = Place(options.output, options.data, options.cache, stopper(options.minutes), log)
    keep_freed_memory()
    if options.stage == "tune":
        done = tune(place, chosen, of, options.settings)
    else:
        done = judge(place, chosen, of, range(options.seeds), options.why or "development")
    log("done" if done else "not done yet: the same command goes on")
    return EXIT_OK if done else EXIT_INTERRUPTED


def _tasks(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[WideTask]:
    for family in options.task:
        if family not in FAMILIES:
            parser.error(f"--task {family!r}: known are {', '.join(FAMILIES)}")
    found = tasks(options.version, options.size)
    return [task for task in found if not options.task or task.family in options.task]


def default_data() -> Path:
    """Return where real data sets are looked for unless ``--data`` says otherwise."""
    return Path(os.environ.get("MLHF_DATASETS_DIR", ".mlhf/datasets"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.wide",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = default_data()
    parser.add_argument("stage", choices=("tune", "judge", "report"))
    parser.add_argument("--version", choices=VERSIONS, default="development")
    parser.add_argument("--size", choices=("tiny", "cpu"), default="cpu")
    parser.add_argument("--task", action="append", default=[], metavar="FAMILY")
    parser.add_argument("--only", action="append", default=[], metavar="OPTIMIZER")
    parser.add_argument("--settings", type=positive_int, default=5, help="of each peer, at most")
    parser.add_argument("--seeds", type=positive_int, default=3)
    parser.add_argument("--why", help="judged: why it is looked at")
    parser.add_argument("--minutes", type=float, help="stop after so many; run again to go on")
    parser.add_argument("--output", type=Path, default=_OUTPUT)
    parser.add_argument("--data", type=Path, default=data, help=f"real data (default {data})")
    parser.add_argument("--cache", type=Path, default=Path(".mlhf/wide"), help="made data")
    return parser


if __name__ == "__main__":
    sys.exit(main())
