"""Measure how much CPU time the command line takes to start.

    python -m bench.cli_startup [--runs 5] [--imports]

Prints user plus system seconds of each command, as median and range over fresh processes that
run one after the other; ``--imports`` adds the slowest imports of ``mlhf --version``.
"""

import argparse
import os
import statistics
import subprocess
import sys

COMMANDS = ("--version", "--help")


def cpu_seconds(command: list[str]) -> float:
    """User plus system time of a process and its children."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def slowest_imports(command: list[str], count: int = 15) -> list[tuple[float, str]]:
    """Milliseconds that an import takes by itself, without those it starts, and its module."""
    done = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]], check=True, capture_output=True, text=True
    )
    rows = []
    for line in done.stderr.splitlines():
        own, _, name = (part.strip() for part in line.removeprefix("import time:").split("|"))
        if own.isdigit():
            rows.append((int(own) / 1000, name))
    return sorted(rows, reverse=True)[:count]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--imports", action="store_true")
    options = parser.parse_args()
    program = [sys.executable, "-m", "mlhf_service.cli.main"]
    for argument in COMMANDS:
        seconds = [cpu_seconds([*program, argument]) for _ in range(options.runs)]
        median, low, high = statistics.median(seconds), min(seconds), max(seconds)
        print(f"mlhf {argument:10} {median:.2f} s of CPU ({low:.2f} to {high:.2f})")
    if options.imports:
        for milliseconds, name in slowest_imports([*program, "--version"]):
            print(f"{milliseconds:7.1f} ms  {name}")


if __name__ == "__main__":
    main()
