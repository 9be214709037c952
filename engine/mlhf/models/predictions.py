"""From a network's outputs to predictions in the units of its data."""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from mlhf.data.info import DataInfo, TargetInfo
from mlhf.losses.detection import detections
from mlhf.losses.specs import default_loss
from mlhf.models.shapes import head_sizes


def predictions(
    outputs: Any,
    info: DataInfo,
    loss: str,
    loss_params: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
) -> Any:
    """Return what ``LoadedModel.predict`` does.

    Args:
        outputs: Of the network.
        info: The data as the network fits it.
        loss: The name of the loss.
        loss_params: Its parameters.
        preprocessing: What the training data went through.
    """
    if info.task == "detection":
        names = ("boxes", "scores", "labels")
        return [dict(zip(names, each, strict=True)) for each in detections(outputs)]
    maps = info.kind == "image"
    if not info.heads:
        (target,) = info.targets.values()
        return _predicted(outputs, target, loss, maps, preprocessing)
    shapes = {name: head_sizes(info, name) for name in info.heads}
    slices = torch.split(outputs, [prod(shape) for shape in shapes.values()], 1)
    found = {}
    for (name, shape), own in zip(shapes.items(), slices, strict=True):
        chosen = loss_params.get("heads", {}).get(name, {}).get("loss") or {}
        target = info.heads[name]
        units = preprocessing.get("targets", {}).get(name, {})
        own_loss = chosen.get("name") or default_loss(target.task)
        found[name] = _predicted(own.reshape(-1, *shape), target, own_loss, maps, units)
    return found


def _predicted(
    outputs: Tensor, target: TargetInfo, loss: str, images: bool, units: Mapping[str, Any]
) -> Tensor:
    axis = 1 if images and target.positions else -1
    if target.task == "multilabel":
        return (outputs > 0).to(torch.int64)
    if target.task == "classification":
        if loss == "binary_cross_entropy":
            return (outputs > 0).squeeze(axis).to(torch.int64)
        return outputs.argmax(axis)
    if loss == "poisson":
        return outputs.exp()
    mean, std = (
        torch.tensor(units[key], dtype=outputs.dtype) for key in ("target_mean", "target_std")
    )
    values = outputs.movedim(axis, -1)
    count = values.shape[-1] // len(mean)  # of quantiles
    mean, std = mean.repeat_interleave(count), std.repeat_interleave(count)
    return (values * std + mean).movedim(-1, axis)
