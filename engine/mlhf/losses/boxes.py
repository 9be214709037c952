"""Boxes: x1, y1, x2, y2 along the last axis, in pixels."""

import torch
from torch import Tensor

# Deviations of a box from another are told in these units (Girshick 2015, "Fast R-CNN").
_SCALE = (10.0, 10.0, 5.0, 5.0)
_LARGEST = 4.0  # logarithm of a change of size


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of boxes (…, N, 4) and (…, M, 4): (…, N, M)."""
    a, b = a.unsqueeze(-2), b.unsqueeze(-3)
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    areas = (_sides(a).clamp_min(0).prod(-1), _sides(b).clamp_min(0).prod(-1))
    union = areas[0] + areas[1] - shared
    return torch.where(union > 0, shared / union.clamp_min(1e-9), 0.0)


def encode_boxes(boxes: Tensor, reference: Tensor) -> Tensor:
    """Return the deltas (…, 4) that ``decode_boxes`` turns into these boxes."""
    sides, own = _sides(reference).clamp_min(1e-3), _sides(boxes).clamp_min(1e-3)
    shift = (_centres(boxes) - _centres(reference)) / sides
    return torch.cat([shift, (own / sides).log()], -1) * boxes.new_tensor(_SCALE)


def decode_boxes(reference: Tensor, deltas: Tensor) -> Tensor:
    """Return the boxes (…, 4) that deltas (…, 4) make of others: of anchors or regions.

    The first two move the centre, the others change the logarithms of the sides.
    """
    moved = deltas / torch.tensor(_SCALE, dtype=deltas.dtype, device=deltas.device)
    sides = (reference[..., 2:] - reference[..., :2]).clamp_min(1e-3)
    centre = (reference[..., :2] + reference[..., 2:]) / 2 + moved[..., :2] * sides
    half = sides * moved[..., 2:].clamp(-_LARGEST, _LARGEST).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def suppress(boxes: Tensor, scores: Tensor, most_overlap: float) -> Tensor:
    """Return the indices of boxes (N, 4) that no better one overlaps more, the best first."""
    order = scores.argsort(descending=True, stable=True)
    overlaps = overlap(boxes[order], boxes[order]) > most_overlap
    kept = torch.ones(len(order), dtype=torch.bool)
    for at in range(len(order)):
        if kept[at]:
            kept[at + 1 :] &= ~overlaps[at, at + 1 :].cpu()
    return order[kept.to(order.device)]


def _sides(boxes: Tensor) -> Tensor:
    return boxes[..., 2:] - boxes[..., :2]


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2
