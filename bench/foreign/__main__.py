"""Train the networks, and write ``trials.json`` and ``README.md``.

    python -m bench.foreign [--output docs/results/foreign] [--only WORD] [--again]

About half an hour of one core. What is in ``trials.json`` is not trained again, unless
``--again`` is given.
"""

import argparse
from pathlib import Path

import torch

from bench.foreign import packages, report
from bench.foreign.networks import networks
from bench.foreign.results import Results
from bench.foreign.trial import trial
from mlhf.core.optional import MissingPackageError


def main() -> None:
    """Train each network, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("docs/results/foreign"))
    parser.add_argument("--only", default="", help="networks with this in their name")
    parser.add_argument("--again", action="store_true", help="train what was trained before too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        versions = packages.versions()
    except MissingPackageError as error:
        print(error)
        return
    results = Results(given.output / "trials.json", versions)
    for name, network in networks().items():
        if given.only in name and (given.again or name not in results.trials):
            results.add(name, trial(network))
            print(report.line(name, results.trials[name]), flush=True)
    (given.output / "README.md").write_text(report.page(results.versions, results.trials))
    print(report.verdict(results.trials))


if __name__ == "__main__":
    main()
