"""A run's curves as an event file of TensorBoard."""

from collections.abc import Iterable, Iterator

from mlhf_service.kit.event_files import Scalar, write
from mlhf_service.runs.curves import Series

NAME = "events.out.tfevents.mlhf"


def pieces(series: Iterable[Series], began: float) -> Iterator[bytes]:
    """The file in pieces: a tag a metric, at the time of its seconds of training.

    Args:
        began: When the run began, in seconds since 1970.
    """
    return write(
        Scalar(one.metric, step, began + seconds, value)
        for one in series
        for step, seconds, value in zip(
            one.step.tolist(), one.wall_seconds.tolist(), one.value.tolist(), strict=True
        )
    )
