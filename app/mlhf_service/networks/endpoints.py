"""HTTP for networks."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Path, Request, Response, UploadFile, status

from mlhf.core.errors import DataError, SpecError
from mlhf_service.api.dependencies import (
    CurrentCaller,
    CurrentDatabase,
    CurrentSettings,
    CurrentStorage,
    ReadSession,
)
from mlhf_service.api.room import RequireRoom
from mlhf_service.database import now
from mlhf_service.datasets.uploads import staging
from mlhf_service.keys.quotas import require_room
from mlhf_service.kit import downloads
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.pagination import Cursor, Limit, Order, Page, paginate
from mlhf_service.kit.problems import Invalid, NotFound, Unavailable
from mlhf_service.kit.saving import save
from mlhf_service.kit.text import MOST, PATTERN
from mlhf_service.networks import by_worker, repository, service
from mlhf_service.networks.examiner import (
    Bounds,
    Examiner,
    ExaminerLostError,
    is_possible,
    sizes_of,
)
from mlhf_service.networks.models import Network
from mlhf_service.networks.schemas import NetworkView

router = APIRouter(prefix="/networks", tags=["networks"])

Identity = Annotated[
    str, Path(pattern=r"^net_[0-9a-z]{1,36}$", description="Id of a network, `net_…`.")
]
Name = Annotated[str, Form(min_length=1, max_length=MOST, pattern=PATTERN)]
_MOST_GRAPH_BYTES = 64 * 2**20
_CHECK_SECONDS = 120.0


async def _examiner(request: Request) -> Examiner:
    examiner: Examiner = request.app.state.examiner
    return examiner


CurrentExaminer = Annotated[Examiner, Depends(_examiner)]


@router.get("")
def list_networks(
    session: ReadSession, limit: Limit = 50, cursor: Cursor = None
) -> Page[NetworkView]:
    """List uploaded networks, the newest first."""
    order = Order(Network.id, Network.id, down=True)
    return paginate(session, repository.search(), order, limit, cursor, service.view)


@router.post("", status_code=status.HTTP_201_CREATED, dependencies=[RequireRoom])
def upload_network(
    name: Name,
    graph: Annotated[UploadFile, File(description="The .json that mlhf.trace makes.")],
    response: Response,
    database: CurrentDatabase,
    settings: CurrentSettings,
    storage: CurrentStorage,
    caller: CurrentCaller,
    examiner: CurrentExaminer,
    weights: Annotated[
        UploadFile | None, File(description="Its weights, a .safetensors file.")
    ] = None,
) -> NetworkView:
    """Upload a network. It is checked without memory for its tensors before it is kept.

    Where the API has no torch, a worker's machine checks it; 503 where there is none.
    """
    identity = new_id("net")
    key = f"networks/{identity}"
    bounds = Bounds(
        settings.upload_check_memory_bytes, min(_CHECK_SECONDS, settings.upload_check_seconds)
    )
    with staging(settings) as folder:
        graph_path = folder / service.GRAPH
        weights_path = folder / service.WEIGHTS if weights is not None else None
        size = save(graph, graph_path, _MOST_GRAPH_BYTES, "A graph")
        if weights is not None and weights_path is not None:
            # Eight bytes a parameter, and the buffers.
            size += save(
                weights, weights_path, 16 * settings.max_parameters, "A file of weights here"
            )
        with graph_path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        with _told(weights is not None):
            if is_possible():
                sizes = examiner.examine(graph_path, weights_path, bounds)
        storage.put_folder(key, folder)
    try:
        if not is_possible():
            lease = settings.lease_seconds
            with _told(weights is not None):
                sizes = sizes_of(by_worker.ask(database, key, weights is not None, bounds, lease))
        with database.write() as session:
            require_room(session, settings, caller, stored=size)
            row = Network(
                id=identity,
                tenant=caller.tenant,
                key_id=caller.key_id,
                name=name,
                sizes=sizes.model_dump(mode="json"),
                weights=weights is not None,
                sha256=sha256,
                size=size,
                storage_key=key,
                created_at=now(),
            )
            session.add(row)
            session.flush()
            view = service.view(row)
    except BaseException:
        storage.delete(key)
        raise
    response.headers["Location"] = f"/v1/networks/{identity}"
    return view


@contextmanager
def _told(weights: bool) -> Iterator[None]:
    """Have what a check raises as a problem."""
    try:
        yield
    except SpecError as error:
        raise Invalid.at("/graph" + error.pointer, error.message) from None
    except DataError as error:
        raise Invalid.at("/weights" if weights else "/graph", str(error)) from None
    except ExaminerLostError as error:
        raise Unavailable(
            f"The network cannot be checked now: {error}.", headers={"Retry-After": "30"}
        ) from None


@router.get("/{network_id}")
def get_network(network_id: Identity, session: ReadSession) -> NetworkView:
    """One network."""
    return service.find(session, network_id)


@router.get("/{network_id}/graph", response_class=Response)
def download_graph(
    network_id: Identity, request: Request, session: ReadSession, storage: CurrentStorage
) -> Response:
    """Download its graph as JSON."""
    view = service.find(session, network_id)
    try:
        path, _ = service.paths_of(session, storage, network_id)
    except SpecError as error:
        raise NotFound(error.message) from None
    return downloads.send_file(
        request,
        path,
        sha256=view.sha256,
        name=f"{network_id}.json",
        content_type="application/json",
    )
