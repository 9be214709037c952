"""Judge optimizers: tune each by the same budget, judge them on other seeds, report.

    python -m bench.judge --stage tune --task digits-mlp --output results/judge
    python -m bench.judge --stage judge --output results/judge
    python -m bench.judge --stage report --output results/judge

Finished runs are skipped and interrupted ones resume, so that sessions add up. The exit code is
0 when the stage is done, and 75 when time was up or the process was asked to stop.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.harness.contract import Context, Scale
from bench.harness.runs import exclusive_lock
from bench.harness.session import add_machine_options, log, positive_int, stopper
from bench.judge.contenders import CONTENDERS, Contender, contender
from bench.judge.from_service import import_job, sweep
from bench.judge.import_runs import import_runs
from bench.judge.report import report
from bench.judge.stages import Stage
from bench.judge.tasks import BenchmarkTask, tasks, transfers
from mlhf.core.errors import DataError, SpecError
from mlhf.core.process import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    keep_freed_memory,
)
from mlhf_service.client import Client

# How many seeds a stage has unless --seeds says otherwise. Tuning has seeds of its own.
_SEEDS = {
    "tune": 1,
    "judge": 5,
    "time": 1,
    "horizons": 3,
    "stability": 3,
    "transfer": 3,
    "report": 5,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        _list(options.scale)
        return EXIT_OK
    if options.stage is None or options.output is None:
        parser.error("give --stage and --output, or --list")
    contenders = [_contender(parser, name) for name in options.only]
    known = transfers(options.scale) if options.stage == "transfer" else tasks(options.scale)
    wanted = _tasks(parser, known, options.task)
    seeds = options.seeds or _SEEDS.get(options.stage, 0)
    context = Context(
        output=options.output,
        seeds=range(seeds),
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
        if options.stage == "submit" or options.job is not None:
            _through_service(context, options, wanted, contenders or CONTENDERS, seeds or 5)
            return EXIT_OK
        if options.stage == "import":
            if options.curves is None:
                parser.error("--stage import needs --curves, or --job and --task")
            known = [*tasks(options.scale), *transfers(options.scale)]
            log(f"imported {len(import_runs(context, options.curves, known))} runs")
            return EXIT_OK
        if options.stage == "report":
            for path in report(context, options.scale):
                log(f"wrote {path}")
            return EXIT_OK
        for task in wanted:
            stage = Stage(context, task, contenders or CONTENDERS, bool(contenders))
            if not _run_stage(stage, options.stage, seeds, options.tuning_seeds):
                log("not done yet: the same command resumes it")
                return EXIT_INTERRUPTED
    except (DataError, SpecError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED
    log("done")
    return EXIT_OK


def _through_service(
    context: Context,
    options: argparse.Namespace,
    wanted: Sequence[BenchmarkTask],
    contenders: Sequence[Contender],
    seeds: int,
) -> None:
    with Client(options.service) as client:
        if options.stage == "submit":
            for task in wanted:
                body = sweep(task, contenders, range(seeds), options.tuning_seeds)
                log(f"{task.name}: {client.submit(body)['id']}")
            return
        for task in wanted:
            made = import_job(context, client.get, options.job, task, contenders)
            log(f"{task.name}: imported {len(made)} runs")


def _run_stage(stage: Stage, name: str, seeds: int, tuning_seeds: int) -> bool:
    folder = stage.context.output / "runs" / stage.task.name
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder):
        match name:
            case "tune":
                return stage.tune(seeds)
            case "judge":
                return stage.judge()
            case "time":
                return stage.time()
            case "horizons":
                return stage.horizons(tuning_seeds)
            case "stability":
                return stage.stability()
            case _:
                return stage.transfer()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="list tasks and optimizers")
    parser.add_argument("--stage", choices=[*_SEEDS, "import", "submit"])
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="NAME",
        help="only this task (default all); may be repeated",
    )
    parser.add_argument("--scale", choices=("tiny", "cpu", "full"), default="cpu")
    parser.add_argument("--output", type=Path, help="folder of runs, settings and report")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="OPT",
        help="only this optimizer; may be repeated",
    )
    parser.add_argument(
        "--curves", type=Path, metavar="FILE", help="import: a report's curves.csv.gz"
    )
    parser.add_argument(
        "--service", metavar="URL", help="submit: to which service (default: MLHF_URL)"
    )
    parser.add_argument("--job", metavar="ID", help="import: a job that was submitted for --task")
    defaults = ", ".join(f"{stage} {seeds}" for stage, seeds in _SEEDS.items())
    parser.add_argument("--seeds", type=_seeds, help=f"how many (default by stage: {defaults})")
    parser.add_argument(
        "--tuning-seeds",
        type=_seeds,
        default=1,
        help="how many tuning seeds choose a horizon (default 1)",
    )
    add_machine_options(parser)
    return parser


def _seeds(text: str) -> int:
    value = positive_int(text)
    if value > 100:
        raise argparse.ArgumentTypeError("must be at most 100")
    return value


def _list(scale: Scale) -> None:
    for task in (*tasks(scale), *transfers(scale)):
        spec = task.spec
        log(
            f"{task.name}  ({task.family}, {task.kind}): {spec.model.name} on "
            f"{spec.dataset.name}, {task.epochs:g} epochs, batch {spec.batch_size}"
        )
    for each in CONTENDERS:
        log(f"{each.name}  ({each.category}): {len(each.grid) or 'no'} settings")


def _tasks(
    parser: argparse.ArgumentParser, known: Sequence[BenchmarkTask], wanted: Sequence[str]
) -> list[BenchmarkTask]:
    names = [task.name for task in known]
    unknown = sorted(set(wanted) - {"all", *names})
    if unknown:
        parser.error(f"--task {unknown[0]!r}: known are all, {', '.join(names)}")
    return [task for task in known if not wanted or "all" in wanted or task.name in wanted]


def _contender(parser: argparse.ArgumentParser, name: str) -> Contender:
    if name not in [e.name for e in CONTENDERS]:
        parser.error(f"--only {name!r}: known are {', '.join(e.name for e in CONTENDERS)}")
    return contender(name)


if __name__ == "__main__":
    sys.exit(main())
