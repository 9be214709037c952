"""The application factory: settings in, a FastAPI application out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.datastructures import State
from starlette.routing import BaseRoute

import mlhf
from mlhf_service import health, metrics, tracing
from mlhf_service.ablations import endpoints as ablations
from mlhf_service.api import document, validation
from mlhf_service.api.compression import Compressed
from mlhf_service.api.hosts import HostGuard
from mlhf_service.api.methods import Methods
from mlhf_service.api.middleware import BodyLimit, SafeHeaders
from mlhf_service.api.request_ids import RequestIds
from mlhf_service.audit import endpoints as audit
from mlhf_service.catalogue import endpoints as catalogue
from mlhf_service.comparisons import endpoints as comparisons
from mlhf_service.database import Database
from mlhf_service.datasets import endpoints as datasets
from mlhf_service.datasets.uploads import clear_abandoned, staged
from mlhf_service.deletions import endpoints as deletions
from mlhf_service.imports import endpoints as imports
from mlhf_service.jobs import edit_endpoints as edits
from mlhf_service.jobs import endpoints as jobs
from mlhf_service.jobs import limits
from mlhf_service.jobs.kinds.registry import union_tags
from mlhf_service.jobs.stream import Streams
from mlhf_service.keys import endpoints as keys
from mlhf_service.keys import login_endpoints as logins
from mlhf_service.keys.install import install as install_keys
from mlhf_service.kit import problems
from mlhf_service.logged import endpoints as logged
from mlhf_service.meta_checkpoints import endpoints as meta_checkpoints
from mlhf_service.networks import endpoints as networks
from mlhf_service.networks.examiner import Examiner
from mlhf_service.operations import endpoints as operations
from mlhf_service.predictions import endpoints as predictions
from mlhf_service.predictions.service import Predictors
from mlhf_service.queue.celery_app import configure
from mlhf_service.queue.doorbell import Doorbell
from mlhf_service.reports import endpoints as reports
from mlhf_service.retention import endpoints as retention
from mlhf_service.runs import endpoints as runs
from mlhf_service.settings import Settings
from mlhf_service.storage.factory import open_storage
from mlhf_service.web import catalogue as catalogue_pages
from mlhf_service.web import endpoints as web
from mlhf_service.web import housekeeping, login, new_job, run_table
from mlhf_service.web import keys as keys_page
from mlhf_service.web.rendering import error_page
from mlhf_service.webhooks import endpoints as webhooks

_DESCRIPTION = """Train networks with Hessian-free and first-order optimizers, and compare them
by samples and by seconds. Errors are problem documents (RFC 9457)."""


# Only so that the document of the API names it: keys are checked before any route is chosen.
_KEY = HTTPBearer(
    auto_error=False, scheme_name="key", description="A key of the service, where it asks for one."
)


def _routes() -> list[BaseRoute]:
    v1 = APIRouter(
        prefix="/v1",
        responses=document.ERRORS,
        dependencies=[Depends(_KEY), Depends(validation.known_parameters)],
    )
    for domain in (
        jobs,
        edits,
        limits,
        runs,
        logged,
        imports,
        reports,
        predictions,
        comparisons,
        ablations,
        datasets,
        meta_checkpoints,
        networks,
        catalogue,
        deletions,
        keys,
        logins,
        audit,
        webhooks,
        retention,
        operations,
    ):
        v1.include_router(domain.router)
    every = APIRouter()
    pages = (
        web.router,
        login.router,
        keys_page.router,
        housekeeping.router,
        catalogue_pages.router,
        new_job.router,
        run_table.router,
    )
    for router in (v1, health.router, *pages):
        every.include_router(router)
    return every.routes


_DESCRIBED_AFTER_SECONDS = 20.0
# Made once and shared by all applications: making them is the slow part.
_ROUTES = _routes()


async def _stop_idle(state: State, settings: Settings) -> None:
    """End what nobody has asked for a while: processes with torch, and connections."""
    while True:
        await anyio.sleep(30.0)
        await anyio.to_thread.run_sync(state.predictors.stop_idle)
        await anyio.to_thread.run_sync(state.examiner.stop_if_idle, settings.examiner_idle_seconds)
        await anyio.to_thread.run_sync(state.database.close_idle)


async def _describe(app: FastAPI) -> None:
    """Make the API's document before it is asked for, but not while the service starts."""
    await anyio.sleep(_DESCRIBED_AFTER_SECONDS)
    await anyio.to_thread.run_sync(app.openapi)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the API. The database must have been migrated (``mlhf migrate``)."""
    settings = settings or Settings()
    configure(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        clear_abandoned(settings)
        app.state.doorbell.start()
        app.state.streams = Streams(app.state.database, settings.max_event_streams)
        async with anyio.create_task_group() as group:
            group.start_soon(app.state.streams.run)
            group.start_soon(_stop_idle, app.state, settings)
            group.start_soon(_describe, app)
            yield
            group.cancel_scope.cancel()
        app.state.predictors.stop()
        app.state.examiner.stop()
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
    app.state.storage = open_storage(settings)
    app.state.predictors = Predictors(settings)
    app.state.examiner = Examiner(settings, staged(settings))
    app.state.broker_watch = health.BrokerWatch(settings)
    app.state.doorbell = Doorbell(app.state.database)
    app.state.streams = Streams(app.state.database, settings.max_event_streams)

    problems.install(app, union_tags, validation.explain_request, error_page)
    document.install(app)
    app.mount("/static", web.static_files(), name="static")

    install_keys(app, settings, error_page)
    app.add_middleware(Methods)
    app.add_middleware(Compressed)
    app.add_middleware(SafeHeaders)
    app.add_middleware(
        BodyLimit, max_bytes=settings.max_json_bytes, max_upload_bytes=settings.max_upload_bytes
    )
    app.add_middleware(HostGuard, settings=settings)
    metrics.install(app)
    app.add_middleware(RequestIds)
    tracing.instrument(app)
    return app
