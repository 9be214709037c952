"""What the API does beside requests."""

import anyio
import pytest
from starlette.datastructures import State

from mlhf_service import main
from mlhf_service.settings import Settings


class _StopError(Exception):
    pass


def test_what_nobody_asked_for_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Told:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, method: str) -> object:
            return lambda *_: told.append(f"{self._name}.{method}")

    pauses = iter((False, True))

    async def sleep(seconds: float) -> None:
        assert seconds == 30.0
        if next(pauses):
            raise _StopError

    monkeypatch.setattr(main.anyio, "sleep", sleep)
    state = State({name: Told(name) for name in ("predictors", "examiner", "database")})
    with pytest.raises(_StopError):
        anyio.run(main._stop_idle, state, Settings(_env_file=None))
    assert told == ["predictors.stop_idle", "examiner.stop_if_idle", "database.close_idle"]
