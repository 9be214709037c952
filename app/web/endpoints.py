"""The pages: rendered here from the same services as the API, kept live by small scripts."""

from pathlib import Path

from fastapi import APIRouter
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)


def static_files() -> StaticFiles:
    """Style sheets, scripts and the vendored chart library."""
    return StaticFiles(directory=Path(__file__).parent / "static")
