"""Where the tests find real data sets that the product does not ship."""

import os
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[1]

DATA = Path(os.environ.get("MLHF_TEST_DATA", _REPOSITORY.parent / "shared" / "data"))
