"""Whether a run had its processor to itself, so that its seconds can be compared.

On a CPU the thread that trains computes in every operation, whatever the number of threads. On
a machine of its own its CPU seconds are the wall's seconds, within a few percent. Where they are
less than four fifths, it waited for a processor that others used (or for a disk). On a GPU the
thread waits for the device, so that its CPU seconds say nothing; such runs are not judged.
"""

from mlhf_service.runs.models import Run

LEAST_SHARE = 0.8  # of the seconds of training


def processor_share(run: Run) -> float | None:
    """Which fraction of its seconds of training a run had a processor; None if unknown."""
    share = (run.totals or run.progress or {}).get("processor_share")
    return None if share is None else float(share)


def on_gpu(run: Run) -> bool:
    return (run.environment or {}).get("device") == "cuda"


def had_to_share(run: Run) -> bool:
    """Whether its two clocks, the wall's and the processor's, part by more than a fifth."""
    share = processor_share(run)
    return share is not None and share < LEAST_SHARE and not on_gpu(run)
