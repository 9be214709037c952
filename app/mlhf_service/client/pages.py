"""Lists of any length, fetched page by page as they are read."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mlhf_service.client.tables import frame

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R")
_PAGE = 500
Page = tuple[list[R], str | None]


class Pages(Generic[R]):
    """Items of a list; each iteration reads it anew."""

    def __init__(self, fetch: Callable[[int, str | None], Page[R]], limit: int | None) -> None:
        self._fetch = fetch
        self._limit = limit

    def __iter__(self) -> Iterator[R]:
        left, cursor = self._limit, None
        while left is None or left > 0:
            items, cursor = self._fetch(_PAGE if left is None else left, cursor)
            yield from items
            if cursor is None:
                return
            left = None if left is None else left - len(items)

    def to_pandas(self) -> "pd.DataFrame":
        """All of them as a table: nested fields become columns, last values of metrics too."""
        return frame(list(self))


class AsyncPages(Generic[R]):
    """Items of a list, for ``async for``; each iteration reads it anew."""

    def __init__(
        self, fetch: Callable[[int, str | None], Awaitable[Page[R]]], limit: int | None
    ) -> None:
        self._fetch = fetch
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[R]:
        left, cursor = self._limit, None
        while left is None or left > 0:
            items, cursor = await self._fetch(_PAGE if left is None else left, cursor)
            for item in items:
                yield item
            if cursor is None:
                return
            left = None if left is None else left - len(items)

    async def to_pandas(self) -> Any:
        """All of them as a table, as ``Pages.to_pandas``."""
        return frame([item async for item in self])
