"""Refuse what would add data while a disk is full, before anything is half written."""

from fastapi import Depends

from mlhf_service.api.dependencies import CurrentSettings
from mlhf_service.data_folder import full_disk
from mlhf_service.kit.problems import InsufficientStorage


def _require_room(settings: CurrentSettings) -> None:
    if (reason := full_disk(settings)) is not None:
        raise InsufficientStorage(reason)


# For the ``dependencies`` of a route.
RequireRoom = Depends(_require_room)
