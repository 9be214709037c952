"""Carry out an experiment, or go on with it.

    python -m bench.paper experiment3 --scale cpu --output results
    python -m bench.paper judge --help

What is done is skipped, what is half done goes on. Ends with 0 when all is done and 75 when
time was up or it was asked to stop; the report is of what is done so far.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.harness.contract import Context, Experiment
from bench.harness.runs import alone
from bench.harness.session import (
    add_machine,
    count,
    say,
    stopper,
)
from bench.paper.experiments import EXPERIMENTS, experiment
from bench.paper.meta import meta_trained
from mlhf.core.errors import DataError, SpecError
from mlhf.core.process import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    keep_freed_memory,
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.list:
        for name, (title, _) in EXPERIMENTS.items():
            say(f"{name}  {title}")
            for scale in ("cpu", "full"):
                say(f"  --scale {scale}: {', '.join(experiment(name, scale).settings())}")
        return EXIT_OK
    if given.name is None or given.output is None:
        parser.error("give a name and --output, or --list")
    chosen = experiment(given.name, given.scale)
    unknown = sorted(set(given.only) - set(chosen.settings()))
    if unknown:
        parser.error(f"--only {unknown[0]!r}: known are {', '.join(chosen.settings())}")
    context = Context(
        output=given.output,
        seeds=range(given.seeds),
        data=given.data,
        only=given.only,
        meta_checkpoint=given.meta_checkpoint,
        device=given.device,
        threads=given.threads,
        stop=stopper(given.minutes),
        say=say,
    )
    given.output.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    try:
        with alone(given.output):
            done = _carry_out(chosen, context, given.meta_train)
    except (DataError, SpecError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED
    say("done" if done else "not done yet: the same command goes on")
    return EXIT_OK if done else EXIT_INTERRUPTED


def _carry_out(chosen: Experiment, context: Context, recipe: Path | None) -> bool:
    """Meta-train where a recipe is given, run, report; return whether all is done."""
    if recipe is not None:
        made = meta_trained(context, recipe)
        if made is None:
            return False
        context = replace(context, meta_checkpoint=str(made))
    done = chosen.run(context)
    for path in chosen.report(context):
        say(f"wrote {path}")
    return done


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=list(EXPERIMENTS))
    parser.add_argument("--list", action="store_true", help="list experiments, run none")
    parser.add_argument("--scale", choices=("tiny", "cpu", "full"), default="cpu")
    parser.add_argument("--output", type=Path, help="folder of runs and report")
    parser.add_argument("--seeds", type=count, default=3, help="how many (default 3)")
    parser.add_argument("--only", action="append", default=[], metavar="OPT",
                        help="only this optimizer (or task); may be repeated")  # fmt: skip
    add_machine(parser)
    parser.add_argument("--meta-train", type=Path, metavar="JOB.json",
                        help="meta-train by this job first, and use what comes of it")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
