"""The embedded broker: doorbells in a folder."""

import logging

import pytest

from mlhf_service.queue.celery_app import configure
from mlhf_service.settings import Settings


def test_nobody_is_told_that_a_folder_has_no_host(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING, logger="kombu"),
        configure(settings).connection_for_write() as connection,
    ):
        connection.info()
    assert caplog.messages == []
