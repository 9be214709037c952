"""What uploads leave behind whose process was killed."""

import os
import time
from pathlib import Path

from fastapi.testclient import TestClient

from mlhf_service.datasets.uploads import clear_abandoned, staging
from mlhf_service.main import create_app
from mlhf_service.settings import Settings


def _left(settings: Settings, name: str, hours: float) -> Path:
    folder = settings.root / "uploads" / name
    folder.mkdir(parents=True)
    (folder / "data.npz").write_bytes(b"half of it")
    then = time.time() - hours * 3600
    os.utime(folder, (then, then))
    return folder


def test_what_was_abandoned_a_day_ago_goes_when_the_api_starts(settings: Settings) -> None:
    old, recent = _left(settings, "old", 25), _left(settings, "recent", 23)
    with TestClient(create_app(settings)):
        assert not old.exists()
        assert (recent / "data.npz").exists()


def test_an_upload_under_way_stays_and_nothing_to_clear_is_no_error(settings: Settings) -> None:
    clear_abandoned(settings)
    with staging(settings) as folder:
        clear_abandoned(settings)
        assert folder.is_dir()
    assert not folder.exists()
