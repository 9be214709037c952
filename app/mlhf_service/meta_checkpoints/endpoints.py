"""HTTP for meta-checkpoints."""

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, File, Form, Path, Request, Response, UploadFile, status

from mlhf.core.errors import DataError, SpecError
from mlhf.optimizers.learned.families import FAMILIES
from mlhf_service.api.dependencies import (
    CurrentDatabase,
    CurrentSettings,
    CurrentStorage,
    ReadSession,
    WriteSession,
)
from mlhf_service.datasets.uploads import staging
from mlhf_service.kit import downloads
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.pagination import (
    Cursor,
    Limit,
    Order,
    Page,
    paginate,
)
from mlhf_service.kit.problems import Invalid, NotFound, TooLarge
from mlhf_service.meta_checkpoints import files, repository, service
from mlhf_service.meta_checkpoints.models import MetaCheckpoint
from mlhf_service.meta_checkpoints.schemas import Alias, AliasRequest, MetaCheckpointView

router = APIRouter(prefix="/meta-checkpoints", tags=["meta-checkpoints"])

Identity = Annotated[str, Path(pattern=r"^mc_[0-9a-z_]{1,36}$", description="mc_….")]
Name = Annotated[str, Form(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
# MLHF's variants have different networks, so each is a family.
if TYPE_CHECKING:
    Family = str
else:
    Family = Literal[FAMILIES]
_CHUNK = 2**16


@router.get("")
def list_meta_checkpoints(
    session: ReadSession,
    optimizer: Family | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[MetaCheckpointView]:
    """List meta-checkpoints: those shipped with the product, then the newest."""
    order = Order(MetaCheckpoint.id, MetaCheckpoint.id, down=True)
    rows = paginate(session, repository.search(optimizer), order, limit, cursor, lambda row: row)
    views = service.listed(session, rows.data)
    if cursor is None:
        views = service.shipped_views(session, optimizer) + views
    return Page(data=views, next_cursor=rows.next_cursor)


@router.post("", status_code=status.HTTP_201_CREATED)
def upload_meta_checkpoint(
    name: Name,
    file: Annotated[UploadFile, File(description="A .safetensors file of a meta_train job.")],
    response: Response,
    database: CurrentDatabase,
    settings: CurrentSettings,
    storage: CurrentStorage,
) -> MetaCheckpointView:
    """Upload a meta-checkpoint. All of it is checked before it is kept."""
    with staging(settings) as folder:
        path = folder / "meta_checkpoint.safetensors"
        size = 0
        with path.open("wb") as out:
            while chunk := file.file.read(_CHUNK):
                size += len(chunk)
                if size > files.MAX_BYTES:
                    raise TooLarge(f"A meta-checkpoint has at most {files.MAX_BYTES:,} bytes.")
                out.write(chunk)
        try:
            described = files.check(path)
        except DataError as error:
            raise Invalid.at("/file", str(error)) from None
        identity = new_id("mc")
        stored = storage.put(f"meta-checkpoints/{identity}.safetensors", path)
    with database.write() as session:
        service.add(
            session,
            name=name,
            stored=stored,
            described=described,
            source="upload",
            identity=identity,
        )
        view = service.find(session, identity)
    response.headers["Location"] = f"/v1/meta-checkpoints/{identity}"
    return view


@router.get("/{identity}")
def get_meta_checkpoint(identity: Identity, session: ReadSession) -> MetaCheckpointView:
    """One meta-checkpoint with its lineage."""
    return service.find(session, identity)


@router.get(
    "/{identity}/file",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def download_meta_checkpoint(
    identity: Identity, request: Request, session: ReadSession, storage: CurrentStorage
) -> Response:
    """Download its weights as safetensors."""
    view = service.find(session, identity)
    try:
        path = service.path_of(session, storage, identity)
    except SpecError as error:
        raise NotFound(error.message) from None
    return downloads.send_file(
        request.headers,
        path,
        sha256=view.sha256,
        name=f"{identity}.safetensors",
        content_type="application/octet-stream",
    )


@router.put("/aliases/{optimizer}/{alias}")
def set_alias(
    optimizer: Family,
    alias: Annotated[Alias, Path()],
    request: AliasRequest,
    session: WriteSession,
) -> MetaCheckpointView:
    """Let an alias, such as `default`, name a meta-checkpoint."""
    if "\0" in request.meta_checkpoint_id:
        raise NotFound("There is no meta-checkpoint of this id.")
    return service.set_alias(session, optimizer, alias, request.meta_checkpoint_id)


@router.delete("/aliases/{optimizer}/{alias}", status_code=status.HTTP_204_NO_CONTENT)
def drop_alias(optimizer: Family, alias: Annotated[Alias, Path()], session: WriteSession) -> None:
    """Forget an alias; `default` then names what is shipped."""
    service.drop_alias(session, optimizer, alias)
