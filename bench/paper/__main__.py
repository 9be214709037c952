"""Run or resume an experiment of the paper.

    python -m bench.paper experiment3 --scale cpu --output results

Finished runs are skipped and interrupted ones resume. The report covers what is finished so far.
The exit code is 0 when all is done, and 75 when time was up or the process was asked to stop.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.harness.contract import Context, Experiment
from bench.harness.runs import exclusive_lock
from bench.harness.session import (
    add_machine_options,
    log,
    positive_int,
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
    options = parser.parse_args(arguments)
    if options.list:
        for name, (title, _) in EXPERIMENTS.items():
            log(f"{name}  {title}")
            for scale in ("cpu", "full"):
                log(f"  --scale {scale}: {', '.join(experiment(name, scale).settings())}")
        return EXIT_OK
    if options.name is None or options.output is None:
        parser.error("give a name and --output, or --list")
    chosen = experiment(options.name, options.scale)
    unknown = sorted(set(options.only) - set(chosen.settings()))
    if unknown:
        parser.error(f"--only {unknown[0]!r}: known are {', '.join(chosen.settings())}")
    context = Context(
        output=options.output,
        seeds=range(options.seeds),
        data=options.data,
        only=options.only,
        meta_checkpoint=options.meta_checkpoint,
        device=options.device,
        threads=options.threads,
        stop=stopper(options.minutes),
        log=log,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    try:
        with exclusive_lock(options.output):
            done = _run(chosen, context, options.meta_train)
    except (DataError, SpecError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED
    log("done" if done else "not done yet: the same command resumes it")
    return EXIT_OK if done else EXIT_INTERRUPTED


def _run(chosen: Experiment, context: Context, recipe: Path | None) -> bool:
    """Meta-train if there is a recipe, then run and report; return whether all is done."""
    if recipe is not None:
        made = meta_trained(context, recipe)
        if made is None:
            return False
        context = replace(context, meta_checkpoint=str(made))
    done = chosen.run(context)
    for path in chosen.report(context):
        log(f"wrote {path}")
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
    parser.add_argument("--seeds", type=positive_int, default=3, help="how many (default 3)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="OPT",
        help="only this optimizer (or task); may be repeated",
    )
    add_machine_options(parser)
    parser.add_argument(
        "--meta-train",
        type=Path,
        metavar="JOB.json",
        help="meta-train by this job first, and use its meta-checkpoint",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
