"""Whether the service lives, and whether it can take work."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text

from mlhf_service.api.dependencies import CurrentDatabase

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/healthz")
def healthz() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz")
def readyz(database: CurrentDatabase) -> Health:
    """The database answers too; 503 where it does not."""
    with database.read() as session:
        session.execute(text("select 1"))
    return Health()
