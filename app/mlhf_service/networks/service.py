"""What can be done with networks. Nothing here commits: the request does, once."""

import re
from pathlib import Path

from sqlalchemy.orm import Session

from mlhf.core.errors import SpecError
from mlhf.models.graph.sizes import GraphSizes
from mlhf_service.kit.problems import NotFound
from mlhf_service.networks import repository
from mlhf_service.networks.models import Network
from mlhf_service.networks.schemas import NetworkView, TensorView
from mlhf_service.storage.protocol import Storage

GRAPH, WEIGHTS = "network.json", "network.safetensors"
_ID = re.compile(r"net_[0-9a-z]{1,36}")


def resolve(session: Session, identity: str) -> Network:
    """The network of this id, which stays until the commit.

    Raises SpecError where there is none: users name networks, never files.
    """
    row = repository.get(session, identity, "share") if _ID.fullmatch(identity) else None
    if row is None:
        raise SpecError("", "There is no network of this id: upload it (POST /v1/networks).")
    return row


def paths_of(session: Session, storage: Storage, identity: str) -> tuple[Path, Path | None]:
    """The files of a network: graph and weights. Raises SpecError where they are gone."""
    row = repository.get(session, identity) if _ID.fullmatch(identity) else None
    if row is None:
        raise SpecError("", f"The network {identity} is no longer there.")
    try:
        return files_of(storage, row.storage_key, row.weights)
    except FileNotFoundError:
        raise SpecError("", f"The files of the network {identity} are gone.") from None


def files_of(storage: Storage, key: str, weights: bool) -> tuple[Path, Path | None]:
    """Graph and weights that were stored as a folder. Raises FileNotFoundError."""
    folder = storage.local_folder(key)  # a bucket has it as one object
    return folder / GRAPH, folder / WEIGHTS if weights else None


def find(session: Session, identity: str) -> NetworkView:
    row = repository.get(session, identity)
    if row is None:
        raise NotFound("There is no network of this id.")
    return view(row)


def view(row: Network) -> NetworkView:
    """What is shown of a row."""
    sizes = GraphSizes.model_validate(row.sizes)
    return NetworkView(
        id=row.id,
        name=row.name,
        inputs=[TensorView(name=i.name, shape=i.shape, dtype=i.dtype) for i in sizes.inputs],
        outputs=[
            TensorView(name=name, shape=output.shape, dtype=output.dtype)
            for name, output in sizes.outputs.items()
        ],
        parameters=sizes.parameters,
        frozen=sizes.frozen,
        activations_per_sample=sizes.activations,
        depth=sizes.depth,
        weights=row.weights,
        sha256=row.sha256,
        size=row.size,
        created_at=row.created_at,
    )
