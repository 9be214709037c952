"""When the factors are updated and the bases are turned: ever less often."""

from mlhf.optimizers.mlhf.kronecker.solver import interval

# Over how many steps the interval between two updates of the factors, and between two of the
# bases, grows by one. Where there are sketches, an update costs as much as a small network's
# whole step, and the mean of rarer ones served as well.
_GROWTH, _WIDE_GROWTH = (40, 7), (3, 3)


class Schedule:
    """The steps at which a basis is next worked on.

    Args:
        update_every: Most steps between two updates of the factors.
        refresh_every: Most steps between two updates of the eigenvectors.

    Attributes:
        next_update: The step, counted from 0, from which on the factors are due.
        next_refresh: The same of the eigenvectors.
    """

    def __init__(self, update_every: int, refresh_every: int) -> None:
        self._update_every, self._refresh_every = update_every, refresh_every
        self.next_update = self.next_refresh = 0

    def updated(self, step: int, *, tracked: bool) -> None:
        """Factors were updated at this step; ``tracked``: some of them are sketches."""
        growth, _ = _WIDE_GROWTH if tracked else _GROWTH
        self.next_update = step + interval(step, growth, self._update_every)

    def refreshed(self, step: int, *, tracked: bool) -> None:
        """Eigenvectors were updated at this step."""
        _, growth = _WIDE_GROWTH if tracked else _GROWTH
        self.next_refresh = step + interval(step, growth, self._refresh_every)
