"""Clients that are given their answers."""

from collections.abc import Callable

import httpx

from mlhf_service.client import AsyncClient, Client


def client_of(*answers: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
    """A client that is given these answers in turn, and the requests that it makes."""
    answer, asked = _in_turn(list(answers))
    client = Client("http://test")
    client._http = httpx.Client(base_url=client.url, transport=httpx.MockTransport(answer))
    return client, asked


def async_client_of(
    *answers: httpx.Response | Exception,
) -> tuple[AsyncClient, list[httpx.Request]]:
    """The same for asyncio."""
    answer, asked = _in_turn(list(answers))
    client = AsyncClient("http://test")
    client._http = httpx.AsyncClient(base_url=client.url, transport=httpx.MockTransport(answer))
    return client, asked


def _in_turn(
    waiting: list[httpx.Response | Exception],
) -> tuple[Callable[[httpx.Request], httpx.Response], list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        found = waiting.pop(0)
        if isinstance(found, httpx.TimeoutException):
            raise type(found)(str(found), request=request)
        if isinstance(found, Exception):
            raise found
        return found

    return answer, asked
