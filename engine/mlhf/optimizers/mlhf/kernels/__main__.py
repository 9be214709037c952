"""Compiles the C++ operators into this Python environment, for all who use it:

    python -m mlhf.optimizers.mlhf.kernels

A wheel may have them already. Prints where they are, or why there are none.
"""

import sys

from mlhf.optimizers.mlhf.kernels import library
from mlhf.optimizers.mlhf.kernels.build import NoCompiler


def main() -> int:
    """Print where the library is, or why there is none, which is no failure."""
    try:
        sys.stdout.write(f"{library.install()}\n")
    except (NoCompiler, OSError) as error:
        sys.stdout.write(f"MLHF will run in plain torch, without C++ operators: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
