"""A bounded part of ``make fuzz``: jobs are really made, and nothing breaks."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mlhf_service.database import Database
from mlhf_service.main import create_app
from mlhf_service.migrate import migrate
from mlhf_service.settings import Settings

pytest.importorskip("hypothesis")
pytest.importorskip("schemathesis")


@pytest.fixture
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("fuzzed"))
    database = Database(settings.database)
    migrate(database)
    database.dispose()
    app = create_app(settings)
    yield app
    app.state.database.dispose()


@pytest.mark.slow
def test_no_case_is_an_error_of_ours_or_breaks_the_document(app: FastAPI) -> None:
    from bench.fuzz import fuzz

    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        fuzzer = fuzz(client, app, 120, seed=1, under="/v1/jobs")
    assert fuzzer.breaches == {}
    assert fuzzer.answers["POST /v1/jobs", 201] > 0


@pytest.mark.slow
def test_damaged_uploads_are_taken_or_refused(app: FastAPI) -> None:
    from bench import fuzz_uploads

    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        found = fuzz_uploads.fuzz(client, app.state.settings, 60, seed=1)
    assert found.wrong == []
    assert set(found.statuses) == {201, 422}


@pytest.mark.slow
def test_walks_along_links_break_nothing(app: FastAPI) -> None:
    from bench import fuzz_walks

    with TestClient(app, base_url="http://127.0.0.1"):
        walked = fuzz_walks.walk(app, 2, seed=1)
    assert walked.breaches == []
    assert walked.answers.total() > 0
