"""Judge optimizers: tune each by the same budget, judge on other seeds, report.

    python -m bench.paper judge --stage tune --task digits-mlp --output results/judge
    python -m bench.paper judge --stage judge --output results/judge
    python -m bench.paper judge --stage report --output results/judge

What is done is skipped, what is half done goes on, and sittings add up. Ends with 0 when the
stage is done and with 75 when time was up or it was asked to stop.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.harness.contract import Context, Scale
from bench.harness.runs import alone
from bench.harness.session import (
    add_machine,
    count,
    say,
    stopper,
)
from bench.judge.grids import ENTRANTS, Entrant, entrant
from bench.judge.imported import take_up
from bench.judge.report import report
from bench.judge.stages import Stage
from bench.judge.tasks import Judged, tasks, transfers
from mlhf.core.errors import DataError, SpecError
from mlhf.core.process import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    keep_freed_memory,
)

# How many seeds a stage has unless --seeds says otherwise; tuning's are others.
_SEEDS = {"tune": 1, "judge": 5, "time": 1, "horizons": 3, "endure": 3, "transfer": 3, "report": 5}


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.list:
        _list(given.scale)
        return EXIT_OK
    if given.stage is None or given.output is None:
        parser.error("give --stage and --output, or --list")
    entrants = [_entrant(parser, name) for name in given.only]
    every = transfers(given.scale) if given.stage == "transfer" else tasks(given.scale)
    wanted = _tasks(parser, every, given.task)
    count_of_seeds = given.seeds or _SEEDS.get(given.stage, 0)
    context = Context(
        output=given.output,
        seeds=range(count_of_seeds),
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
        if given.stage == "import":
            if given.curves is None:
                parser.error("--stage import needs --curves")
            made = take_up(context, given.curves, [*tasks(given.scale), *transfers(given.scale)])
            say(f"took up {len(made)} runs")
            return EXIT_OK
        if given.stage == "report":
            for path in report(context, given.scale):
                say(f"wrote {path}")
            return EXIT_OK
        for judged in wanted:
            stage = Stage(context, judged, entrants or ENTRANTS, bool(entrants))
            if not _carry_out(stage, given.stage, count_of_seeds, given.tuning_seeds):
                say("not done yet: the same command goes on")
                return EXIT_INTERRUPTED
    except (DataError, SpecError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED
    say("done")
    return EXIT_OK


def _carry_out(stage: Stage, name: str, seeds: int, tuning_seeds: int) -> bool:
    folder = stage.context.output / "runs" / stage.judged.name
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        match name:
            case "tune":
                return stage.tune(seeds)
            case "judge":
                return stage.judge()
            case "time":
                return stage.time()
            case "horizons":
                return stage.horizons(tuning_seeds)
            case "endure":
                return stage.endure()
            case _:
                return stage.transfer()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.paper judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="list tasks and optimizers")
    parser.add_argument("--stage", choices=[*_SEEDS, "import"])
    parser.add_argument("--task", action="append", default=[], metavar="NAME",
                        help="only this task (default all); may be repeated")  # fmt: skip
    parser.add_argument("--scale", choices=("tiny", "cpu", "full"), default="cpu")
    parser.add_argument("--output", type=Path, help="folder of runs, settings and report")
    parser.add_argument("--only", action="append", default=[], metavar="OPT",
                        help="only this optimizer; may be repeated")  # fmt: skip
    parser.add_argument("--curves", type=Path, metavar="FILE",
                        help="import: a report's curves.csv.gz")  # fmt: skip
    parser.add_argument("--seeds", type=_seeds, help="how many (default by the stage: "
                        + ", ".join(f"{k} {v}" for k, v in _SEEDS.items()) + ")")  # fmt: skip
    parser.add_argument("--tuning-seeds", type=_seeds, default=1,
                        help="of them, on how many horizons are chosen (default 1)")  # fmt: skip
    add_machine(parser)
    return parser


def _seeds(text: str) -> int:
    value = count(text)
    if value > 100:
        raise argparse.ArgumentTypeError("must be at most 100")
    return value


def _list(scale: Scale) -> None:
    for judged in (*tasks(scale), *transfers(scale)):
        task = judged.task
        say(f"{judged.name}  ({judged.family}, {judged.kind}): {task.model.name} on "
            f"{task.dataset.name}, {judged.epochs:g} epochs, batch {task.batch_size}")  # fmt: skip
    for each in ENTRANTS:
        say(f"{each.name}  ({each.rank}): {len(each.grid) or 'no'} settings")


def _tasks(
    parser: argparse.ArgumentParser, every: Sequence[Judged], wanted: Sequence[str]
) -> list[Judged]:
    known = [j.name for j in every]
    unknown = sorted(set(wanted) - {"all", *known})
    if unknown:
        parser.error(f"--task {unknown[0]!r}: known are all, {', '.join(known)}")
    return [j for j in every if not wanted or "all" in wanted or j.name in wanted]


def _entrant(parser: argparse.ArgumentParser, name: str) -> Entrant:
    if name not in [e.name for e in ENTRANTS]:
        parser.error(f"--only {name!r}: known are {', '.join(e.name for e in ENTRANTS)}")
    return entrant(name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
