"""Relative L2 errors of every contender at equal CPU seconds, over several seeds.

    python -m bench.science --seconds 60 --seeds 5            # runs, or goes on
    python -m bench.science --report                          # tables and drawings alone
    python -m bench.science --problems kfac_poisson2 pinnacle_burgers --folder FOLDER \
        --contenders gauss_newton mlhf                        # beside published errors

First each contender's grid is run for a fraction of the time on a seed that nothing else uses.
Then its best setting is run on every seed. Runs are kept in ``runs.jsonl`` line by line, and not
repeated: it may be stopped at any time, and goes on. After each seed tables and drawings are
written anew, with the text of ``conditions.txt`` where there is one. ``--most`` ends it after so
many runs, ``--until`` at a time of day.
"""

import argparse
import time
from pathlib import Path

import torch

from bench.science import results as kept
from bench.science.catalogue import ALL
from bench.science.contenders import CONTENDERS, run, warm_up
from bench.science.problems import TABLE


def wanted(options: argparse.Namespace, seed: int) -> list[tuple[str, str, int, int, float]]:
    """Return the keys of a seed's runs that are known so far, in order."""
    found = kept.read(options.folder / "runs.jsonl")
    keys = []
    for problem in options.problems:
        for contender in options.contenders:
            if seed == kept.TUNED_ON:
                count = len(CONTENDERS[contender])
                settings = list(range(count)) if count > 1 else []
                seconds = options.tune_seconds
            else:
                best = kept.tuned(found, problem, contender)
                settings, seconds = [] if best is None else [best], options.seconds
            keys += [(problem, contender, setting, seed, seconds) for setting in settings]
    return keys


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("docs/results/science"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--tune-seconds", type=float, default=15.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--problems", nargs="*", default=TABLE, choices=list(ALL))
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--most", type=int, default=10**9, help="runs of this call")
    parser.add_argument("--until", help="HH:MM; no run begins after it")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = options.folder / "runs.jsonl"
    left = 0 if options.report else options.most
    for seed in (kept.TUNED_ON, *range(options.seeds)):
        done = {tuple(r[k] for k in kept.KEYS) for r in kept.read(file)}
        for key in wanted(options, seed):
            late = options.until is not None and time.strftime("%H:%M") >= options.until
            if key in done or left <= 0 or late:
                continue
            problem, contender, setting, _, seconds = key
            warm_up(CONTENDERS[contender][setting])
            curve = run(problem, CONTENDERS[contender][setting], seed, seconds)
            kept.add(file, {**dict(zip(kept.KEYS, key, strict=True)), "curve": curve})
            left -= 1
            print(*key, f"{curve[-1][1]} steps, {curve[-1][2]:.1e}", flush=True)
        write_report(options)


def write_report(options: argparse.Namespace) -> None:
    """Write what there is so far."""
    results = kept.read(options.folder / "runs.jsonl")
    times = sorted({r["seconds"] for r in results if r["seed"] != kept.TUNED_ON})
    tuning = sorted({r["seconds"] for r in results if r["seed"] == kept.TUNED_ON})
    note = (
        f"By `python -m bench.science`, float64, one thread, {_numbers(times)} seconds of CPU time "
        f"a run, after {_numbers(tuning)} seconds for each setting of a grid. `gauss_newton` and "
        "`mlhf` have none: they run as they come."
    )
    conditions = options.folder / "conditions.txt"
    if conditions.exists():
        note += "\n\n" + conditions.read_text().strip()
    kept.report(results, options.problems, options.folder, note)


def _numbers(values: list[float]) -> str:
    return " or ".join(f"{v:g}" for v in values) or "no"


if __name__ == "__main__":
    main()
