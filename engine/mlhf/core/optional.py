"""Packages that only an extra of the installation brings, such as ``mlhf[data]``."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingPackageError(ImportError):
    """A package of an extra is not installed; the message says how to get it.

    Args:
        package: Its name, as it is imported.
        extra: The extra of ours that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"The package {package} is not installed. It comes with: pip install 'mlhf[{extra}]'",
            name=package,
        )


@contextmanager
def from_extra(extra: str) -> Iterator[None]:
    """Import what an extra brings.

        with from_extra("data"):
            import pyarrow as pa

    Raises:
        MissingPackageError: where a package imported within is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "", extra) from error
