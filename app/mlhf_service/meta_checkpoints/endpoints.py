"""HTTP for meta-checkpoints."""

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, File, Form, Path, Request, Response, UploadFile, status

from mlhf.core.errors import DataError, SpecError
from mlhf.optimizers.learned.families import FAMILIES
from mlhf_service.api.dependencies import (
    CurrentCaller,
    CurrentDatabase,
    CurrentSettings,
    CurrentStorage,
    ReadSession,
    WriteSession,
)
from mlhf_service.api.room import RequireRoom
from mlhf_service.datasets.uploads import staging
from mlhf_service.keys.quotas import require_room
from mlhf_service.kit import downloads
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.pagination import (
    Cursor,
    Limit,
    Page,
)
from mlhf_service.kit.problems import Invalid, NotFound
from mlhf_service.kit.saving import save
from mlhf_service.kit.text import MOST, PATTERN
from mlhf_service.meta_checkpoints import files, service
from mlhf_service.meta_checkpoints.schemas import Alias, AliasRequest, MetaCheckpointView

router = APIRouter(prefix="/meta-checkpoints", tags=["meta-checkpoints"])

Identity = Annotated[
    str, Path(pattern=r"^mc_[0-9a-z_]{1,36}$", description="Id of a meta-checkpoint, `mc_…`.")
]
Name = Annotated[str, Form(min_length=1, max_length=MOST, pattern=PATTERN)]
# MLHF's variants have different networks, so each is a family.
if TYPE_CHECKING:
    Family = str
else:
    Family = Literal[FAMILIES]


@router.get("")
def list_meta_checkpoints(
    session: ReadSession,
    optimizer: Family | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[MetaCheckpointView]:
    """List meta-checkpoints: those shipped with the product, then the newest."""
    return service.page(session, optimizer, limit, cursor)


@router.post("", status_code=status.HTTP_201_CREATED, dependencies=[RequireRoom])
def upload_meta_checkpoint(
    name: Name,
    file: Annotated[UploadFile, File(description="A .safetensors file of a meta_train job.")],
    response: Response,
    database: CurrentDatabase,
    settings: CurrentSettings,
    storage: CurrentStorage,
    caller: CurrentCaller,
) -> MetaCheckpointView:
    """Upload a meta-checkpoint. All of it is checked before it is kept."""
    with staging(settings) as folder:
        path = folder / "meta_checkpoint.safetensors"
        save(file, path, files.MAX_BYTES, "A meta-checkpoint")
        try:
            described = files.check(path)
        except DataError as error:
            raise Invalid.at("/file", str(error)) from None
        identity = new_id("mc")
        stored = storage.put(f"meta-checkpoints/{identity}.safetensors", path)
    try:
        with database.write() as session:
            require_room(session, settings, caller, stored=stored.size)
            service.add(
                session,
                name=name,
                stored=stored,
                described=described,
                source="upload",
                identity=identity,
                owner=caller,
            )
            view = service.find(session, identity)
    except BaseException:
        storage.delete(stored.key)
        raise
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
        request,
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
