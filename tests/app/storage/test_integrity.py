"""Files of the store are read once to be sure of them, and again when they have changed."""

import os
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.storage import integrity
from mlhf_service.storage.folder import FolderStorage
from tests.app.conftest import Rows


def test_an_intact_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FolderStorage(tmp_path)
    stored = storage.put("a", b"content")
    reads = []
    real = integrity.size_and_sha256

    def counting(path: Path) -> tuple[int, str]:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(integrity, "size_and_sha256", counting)
    assert [storage.is_intact(stored) for _ in range(3)] == [True] * 3
    assert len(reads) == 1
    path = storage.path("a")
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(1, 1))
    assert [storage.is_intact(stored) for _ in range(2)] == [False] * 2
    path.write_bytes(b"content")
    assert storage.is_intact(stored)
    path.write_bytes(b"more content")
    assert not storage.is_intact(stored)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        storage.is_intact(stored)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_damaged_file_is_not_sent(client: TestClient, rows: Rows, storage: Any) -> None:
    run_id = rows.run()
    rows.artifact(run_id, "model.safetensors", b"weights")
    url = f"/v1/runs/{run_id}/artifacts/model.safetensors"
    assert client.get(url).content == b"weights"
    storage.path(f"runs/{run_id}/model.safetensors").write_bytes(b"WEIGHTS")
    answer = client.get(url)
    assert answer.status_code == 410
    assert "damaged" in answer.json()["detail"]
