"""A service that asks for keys, and keys of two tenants."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mlhf_service.database import Database
from mlhf_service.keys import service
from mlhf_service.keys.schemas import NewKey
from mlhf_service.settings import Settings

MakeKey = Callable[..., NewKey]


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        database_url=database_url,
        datasets_dir=tmp_path / "datasets",
        auth="keys",
        host="0.0.0.0",
        rate_limit_storage="memory://",
    )


@pytest.fixture
def make_key(database: Database) -> MakeKey:
    """Makes a key; by default one of tenant ``a`` that may read."""

    def make(*scopes: str, tenant: str = "a", name: str = "a key", **fields: object) -> NewKey:
        with database.write() as session:
            return service.create(
                session, name=name, tenant=tenant, scopes=scopes or ["read"], **fields
            )

    return make


def bearer(key: NewKey | str) -> dict[str, str]:
    """The header that sends a key."""
    return {"Authorization": f"Bearer {key if isinstance(key, str) else key.secret}"}


@pytest.fixture
def as_(app: FastAPI, client: TestClient) -> Iterator[Callable[[NewKey], TestClient]]:
    """A client that asks with a key; ``client`` asks without."""
    clients: list[TestClient] = []

    def ask(key: NewKey) -> TestClient:
        made = TestClient(
            app,
            base_url="http://127.0.0.1",
            raise_server_exceptions=False,
            headers=bearer(key),
            follow_redirects=False,
        )
        clients.append(made)
        return made

    yield ask
    for made in clients:
        made.close()


def forget(app: FastAPI) -> None:
    """Have the service look at the database again, as it does after two seconds."""
    app.state.authenticator._known.clear()


__all__: Sequence[str] = ["MakeKey", "bearer", "forget"]
