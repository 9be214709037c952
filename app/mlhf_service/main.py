"""The application factory: settings in, a FastAPI application out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute

import mlhf
from mlhf_service import metrics
from mlhf_service.ablations import endpoints as ablations
from mlhf_service.api import health
from mlhf_service.api.middleware import BodyLimit, LocalOnly, SafeHeaders
from mlhf_service.catalogue import endpoints as catalogue
from mlhf_service.comparisons import endpoints as comparisons
from mlhf_service.database import Database
from mlhf_service.datasets import endpoints as datasets
from mlhf_service.datasets.uploads import clear_abandoned
from mlhf_service.jobs import endpoints as jobs
from mlhf_service.jobs.kinds.registry import union_tags
from mlhf_service.kit import problems
from mlhf_service.meta_checkpoints import endpoints as meta_checkpoints
from mlhf_service.queue.celery_app import configure
from mlhf_service.queue.doorbell import Doorbell
from mlhf_service.runs import endpoints as runs
from mlhf_service.settings import LOOPBACK, Settings
from mlhf_service.storage.folder import FolderStorage
from mlhf_service.web import endpoints as web

_DESCRIPTION = """Train networks with Hessian-free and first-order optimizers, and compare them
by samples and by seconds. Errors are problem documents (RFC 9457)."""


def _routes() -> list[BaseRoute]:
    error_responses: dict[int | str, dict[str, object]] = {
        "default": {
            "description": "A problem document.",
            "content": {
                "application/problem+json": {"schema": problems.ProblemDocument.model_json_schema()}
            },
        }
    }
    v1 = APIRouter(prefix="/v1", responses=error_responses)
    for domain in (jobs, runs, comparisons, ablations, datasets, meta_checkpoints, catalogue):
        v1.include_router(domain.router)
    every = APIRouter()
    for router in (v1, health.router, web.router):
        every.include_router(router)
    return every.routes


# Made once and shared by all applications: making them is the slow part.
_ROUTES = _routes()


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the API. The database must have been migrated (``mlhf migrate``)."""
    settings = settings or Settings()
    configure(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        clear_abandoned(settings)
        app.state.doorbell.start()
        yield
        app.state.doorbell.stop()
        app.state.database.dispose()

    app = FastAPI(
        title="MLHF as a service",
        version=mlhf.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        routes=[*_ROUTES],
        docs_url=None,  # the page in web/ loads nothing from other hosts
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.database = Database(settings.database)
    app.state.storage = FolderStorage(settings.artifacts_dir)
    app.state.doorbell = Doorbell(app.state.database)

    problems.install(app, union_tags)
    app.mount("/static", web.static_files(), name="static")

    app.add_middleware(SafeHeaders)
    app.add_middleware(
        BodyLimit, max_bytes=settings.max_json_bytes, max_upload_bytes=settings.max_upload_bytes
    )
    app.add_middleware(LocalOnly, hosts={*LOOPBACK, settings.host})
    metrics.install(app)
    return app
