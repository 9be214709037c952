"""HTTP for the catalogue: what models, optimizers, losses and formats of uploads there are."""

from typing import Annotated

from fastapi import APIRouter, Path

from mlhf_service.catalogue import service
from mlhf_service.catalogue.schemas import Entry, EntryList

router = APIRouter(tags=["catalogue"])

Name = Annotated[str, Path(max_length=100)]


@router.get("/models")
def list_models() -> EntryList:
    """The models, each with a JSON Schema of its params."""
    return EntryList(data=list(service.entries("model")))


@router.get("/models/{name}")
def get_model(name: Name) -> Entry:
    """One model."""
    return service.find("model", name)


@router.get("/optimizers")
def list_optimizers() -> EntryList:
    """The optimizers, each with a JSON Schema of its params."""
    return EntryList(data=list(service.entries("optimizer")))


@router.get("/optimizers/{name}")
def get_optimizer(name: Name) -> Entry:
    """One optimizer."""
    return service.find("optimizer", name)


@router.get("/losses")
def list_losses() -> EntryList:
    """The losses, each with a JSON Schema of its params."""
    return EntryList(data=list(service.entries("loss")))


@router.get("/losses/{name}")
def get_loss(name: Name) -> Entry:
    """One loss."""
    return service.find("loss", name)


@router.get("/dataset-formats")
def list_formats() -> EntryList:
    """The formats of uploaded data sets, each with a JSON Schema of its params."""
    return EntryList(data=list(service.entries("format")))


@router.get("/dataset-formats/{name}")
def get_format(name: Name) -> Entry:
    """One format."""
    return service.find("format", name)
