"""Check an uploaded network in a process of its own, as only there torch is imported."""

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

from mlhf.core import bounded
from mlhf.core.errors import DataError, SpecError
from mlhf.models.graph.sizes import GraphSizes

_PROCESS = "mlhf.models.graph.examination"


def examine(graph: Path, weights: Path | None, memory_bytes: int, seconds: float) -> GraphSizes:
    """Return the sizes of the network in these files.

    Args:
        memory_bytes: What the process may take.
        seconds: How long.

    Raises:
        SpecError: the graph is wrong; the pointer is into it.
        DataError: the weights are not its own, or the check took too much.
    """
    if find_spec("torch") is None:
        raise DataError(
            "this server cannot check networks, as it has no torch: install it beside the API"
        )
    task = {"graph": str(graph), "weights": None if weights is None else str(weights)}
    try:
        done = subprocess.run(
            bounded.command(_PROCESS, memory_bytes),
            env=bounded.environment(),
            input=json.dumps(task).encode(),
            stdout=subprocess.PIPE,
            timeout=seconds,
            start_new_session=True,
            check=False,
        )
        said = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        raise DataError(
            f"the network could not be checked within {memory_bytes / 2**30:.1f} GiB of memory "
            f"and {seconds:.0f} seconds; send a smaller one"
        ) from None
    if "spec" in said:
        raise SpecError(*said["spec"])
    if "data" in said:
        raise DataError(said["data"])
    return GraphSizes.model_validate(said["sizes"])
