"""Checkpoint files: trees of tensors and JSON values in the safetensors format.

The tensors are a safetensors file's tensors, the tree around them is JSON in its metadata.
Reading one runs no code.
"""

import json
import re
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mlhf.core.atomic_files import Written, write
from mlhf.core.errors import CheckpointError

Tree = dict[str, Any]

_FORMAT = "mlhf-checkpoint-1"
_NAME = re.compile(r"step-\d{9,}\.safetensors")
_KEPT = 2


def save(path: Path, tree: Tree) -> Written:
    """Write a tree. The file is either there and whole or not there."""
    tensors: dict[str, Tensor] = {}
    skeleton = _strip(tree, tensors, set())
    metadata = {"format": _FORMAT, "tree": json.dumps(skeleton)}
    return write(path, safetensors.torch.save(tensors, metadata))


def load(path: Path) -> Tree:
    """Read what ``save`` wrote.

    Raises:
        CheckpointError: where the file is absent or not a checkpoint.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise CheckpointError(f"{path.name} is not a checkpoint of this version.")
            tree = _fill(json.loads(metadata["tree"]), file)
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"The checkpoint {path.name} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"The checkpoint {path.name} holds no tree.")
    return tree


def save_step(folder: Path, step: int, tree: Tree) -> Written:
    """Write a step's checkpoint into a folder, and keep only the newest two there."""
    folder.mkdir(parents=True, exist_ok=True)
    written = save(folder / f"step-{step:09d}.safetensors", tree)
    numbered = (p for p in folder.iterdir() if _NAME.fullmatch(p.name))
    newest = sorted(numbered, key=lambda p: int(p.stem.removeprefix("step-")))
    for old in newest[:-_KEPT]:
        old.unlink(missing_ok=True)
    return written


def _strip(value: Any, tensors: dict[str, Tensor], storages: set[int]) -> Any:
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        tensor = value.detach().to("cpu").contiguous()
        # The format refuses tensors that share memory, as tied weights do.
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
        return {"$tensor": name}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value) or "$tensor" in value:
            raise TypeError("a checkpoint's dicts have string keys, none of them $tensor")
        return {key: _strip(item, tensors, storages) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strip(item, tensors, storages) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def _fill(value: Any, file: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"$tensor"}:
            tensor: Tensor = file.get_tensor(value["$tensor"])
            return tensor
        return {key: _fill(item, file) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, file) for item in value]
    return value


def rng_state() -> Tree:
    """Return the state of torch's global generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state: Tree) -> None:
    """Restore what ``rng_state`` returned."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
