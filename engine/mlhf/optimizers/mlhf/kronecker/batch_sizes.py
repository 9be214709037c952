"""How large a batch is against the usual one."""

_RECENT = 10  # batches, of which the median size is the usual one


class BatchSizes:
    """The sizes of the last batches.

    An epoch may end with a batch of a few samples, whose own minimum is far from that of all.
    Its step, and its weight in the mean of squared gradients, are scaled by ``fraction``.

    Attributes:
        recent: Of each of the last batches, the number of its rows; the newest is the last.
    """

    def __init__(self) -> None:
        self.recent: tuple[float, ...] = ()

    def fraction(self, size: float) -> float:
        """Note a batch's size; return it relative to the median of the last ones, at most 1."""
        self.recent = (*self.recent, size)[-_RECENT:]
        usual = sorted(self.recent)[len(self.recent) // 2]
        return min(1.0, size / usual)

    def state_dict(self) -> list[float]:
        return list(self.recent)

    def load_state_dict(self, state: list[float]) -> None:
        self.recent = tuple(float(size) for size in state)
