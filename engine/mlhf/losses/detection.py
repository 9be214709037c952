"""Boxes with classes, by a detector of two stages (Ren et al. 2015, "Faster R-CNN").

The network returns a mapping: ``anchors`` (B, A, 4), ``objectness`` (B, A) and ``anchor_deltas``
(B, A, 4) of its first stage, and of the second ``regions`` (B, K, 4), ``classes`` (B, K, C + 1)
with the background first, and ``region_deltas`` (B, K, 4). Targets are boxes with labels, (B, M, 5)
float: x1, y1, x2, y2, class; rows of class −100 are no boxes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.loss_object import LossObject
from mlhf.losses.boxes import decode_boxes, encode_boxes, overlap, suppress
from mlhf.losses.specs import DETECTOR_OUTPUTS


@dataclass(frozen=True)
class Found:
    """What was found in an image, and what is there; on the CPU.

    Attributes:
        boxes: (N, 4), with ``scores`` (N,) from 0 to 1 and ``labels`` (N,), the best first.
        true_boxes: (M, 4), with ``true_labels`` (M,).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    true_boxes: Tensor
    true_labels: Tensor


class Detection(LossObject):
    """The mean over images of the losses of both stages.

    Of the first, binary cross-entropy of anchors, half by those that are an object's and half by
    background, and a Huber loss of the objects' boxes; of the second, cross-entropy of the
    regions' classes, weighted the same, and a Huber loss of the objects' regions. Which box an
    anchor or a region belongs to, and where the regions are, counts as given, so the loss is
    convex in the outputs.

    Args:
        objectness_weight: Of the anchors' cross-entropy.
        anchor_box_weight: Of the anchors' boxes.
        class_weight: Of the regions' cross-entropy.
        box_weight: Of the regions' boxes.
        positive: Overlap from which an anchor or a region is an object's; the anchor that
            overlaps an object most always is.
        negative: Overlap below which an anchor is background; those between count nowhere.
        delta: Of the Huber losses, in tenths of a side.
    """

    def __init__(
        self,
        objectness_weight: float = 1.0,
        anchor_box_weight: float = 1.0,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        positive: float = 0.5,
        negative: float = 0.3,
        delta: float = 1.0,
    ) -> None:
        self.weights = (objectness_weight, anchor_box_weight, class_weight, box_weight)
        self.positive, self.negative, self.delta = positive, negative, delta

    def __call__(self, z: Any, y: Tensor) -> Tensor:
        check_outputs(z, y)
        with torch.no_grad():
            boxes, labels = y[..., :4].to(z["objectness"].dtype), y[..., 4].long()
            anchors, regions = z["anchors"].detach(), z["regions"].detach()
            object_, background, box = self._matched(anchors, boxes, labels)
            found, _, region_box = self._matched(regions, boxes, labels, best=False)
            wanted = encode_boxes(_taken(boxes, box), anchors)
            region_wanted = encode_boxes(_taken(boxes, region_box), regions)
            classes = torch.where(found, _taken(labels.unsqueeze(-1), region_box)[..., 0] + 1, 0)
            halves = _half_each(object_, background)
            region_halves = _half_each(found, ~found)
        binary = F.binary_cross_entropy_with_logits(
            z["objectness"], object_.to(z["objectness"].dtype), reduction="none"
        )
        logits = z["classes"]
        of_classes = F.cross_entropy(logits.transpose(1, 2), classes, reduction="none")
        terms = (
            (binary * halves).sum(1),
            self._of_boxes(z["anchor_deltas"], wanted, object_),
            (of_classes * region_halves).sum(1),
            self._of_boxes(z["region_deltas"], region_wanted, found),
        )
        total = sum(w * t.mean() for w, t in zip(self.weights, terms, strict=True))
        assert isinstance(total, Tensor)
        return total

    def part_weights(self, y: Any, parts: Sequence[slice]) -> list[float] | None:
        return [(part.stop - part.start) / len(y) for part in parts]

    def found(self, z: Mapping[str, Tensor], y: Tensor, most_overlap: float = 0.5) -> list[Found]:
        """Return what is found in each image: no two of a class that overlap more than this."""
        check_outputs(z, y)
        results = []
        for i, (boxes, scores, labels) in enumerate(detections(z, most_overlap)):
            real = y[i, :, 4] >= 0
            true = y[i, real].cpu()
            results.append(Found(boxes, scores, labels, true[:, :4].float(), true[:, 4].long()))
        return results

    def _of_boxes(self, deltas: Tensor, wanted: Tensor, which: Tensor) -> Tensor:
        """The mean over boxes that are objects', of each image; 0 where there are none."""
        losses = F.huber_loss(deltas, wanted, reduction="none", delta=self.delta).mean(-1)
        return (losses * which).sum(1) / which.sum(1).clamp_min(1)

    def _matched(
        self, places: Tensor, boxes: Tensor, labels: Tensor, best: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return which places are objects' and which are background, and each one's box."""
        real = (labels >= 0).unsqueeze(1)
        overlaps = torch.where(real, overlap(places, boxes), -1.0)
        if not overlaps.shape[-1]:
            none = torch.zeros(places.shape[:2], dtype=torch.bool, device=places.device)
            return none, ~none, none.long()
        most, box = overlaps.max(-1)
        object_ = most >= self.positive
        if best:
            highest = overlaps.amax(1, keepdim=True)
            is_best = (overlaps >= highest) & (highest > 0)
            object_ = object_ | is_best.any(-1)
            box = torch.where(is_best.any(-1), torch.where(is_best, overlaps, -1.0).argmax(-1), box)
        return object_, ~object_ & (most < self.negative), box


def detections(
    z: Mapping[str, Tensor], most_overlap: float = 0.5, least_score: float = 0.01
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return each image's boxes (N, 4), scores (N,) and labels (N,), the best first."""
    probabilities = z["classes"].detach().float().softmax(-1)[..., 1:]
    decoded = decode_boxes(z["regions"].detach().float(), z["region_deltas"].detach().float())
    results = []
    for own, boxes in zip(probabilities.cpu(), decoded.cpu(), strict=True):
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        for label in range(own.shape[1]):
            likely = own[:, label] >= least_score
            scores, places = own[likely, label], boxes[likely]
            chosen = suppress(places, scores, most_overlap)
            label_of = torch.full((len(chosen),), label)
            kept.append((places[chosen], scores[chosen], label_of))
        of_all = [torch.cat(each) for each in zip(*kept, strict=True)]
        order = of_all[1].argsort(descending=True, stable=True)
        results.append((of_all[0][order], of_all[1][order], of_all[2][order]))
    return results


def average_precision(found: Sequence[Found], least_overlap: float = 0.5) -> float:
    """Return the mean over classes of the area under precision by recall (PASCAL VOC, all points).

    A detection is right where it overlaps a box of its class by this much that none with a higher
    score has taken. Classes that no image has are left out; NaN where none has any.
    """
    classes = sorted({int(label) for each in found for label in each.true_labels})
    areas = [_area(found, label, least_overlap) for label in classes]
    return sum(areas) / len(areas) if areas else math.nan


def _area(found: Sequence[Found], label: int, least_overlap: float) -> float:
    scores, right, total = [], [], 0
    for each in found:
        true = each.true_boxes[each.true_labels == label]
        own = each.labels == label
        total += len(true)
        taken = torch.zeros(len(true), dtype=torch.bool)
        overlaps = overlap(each.boxes[own], true)
        for row, score in zip(overlaps, each.scores[own], strict=True):
            best = int(row.argmax()) if len(row) else -1
            hit = best >= 0 and float(row[best]) >= least_overlap and not bool(taken[best])
            if hit:
                taken[best] = True
            scores.append(float(score))
            right.append(hit)
    if not scores:
        return 0.0
    order = torch.tensor(scores, dtype=torch.float64).argsort(descending=True, stable=True)
    hits = torch.tensor(right, dtype=torch.float64)[order].cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    recall = torch.cat([torch.zeros(1, dtype=torch.float64), hits / total])
    return float((envelope * recall.diff()).sum())


def check_outputs(z: Any, y: Any) -> None:
    """Check that a network's outputs are those of a detector of two stages.

    Raises:
        CurvatureError: they are not, or the targets do not fit them.
    """
    if not isinstance(z, Mapping) or not set(DETECTOR_OUTPUTS) <= set(z):
        has = ", ".join(map(str, z)) if isinstance(z, Mapping) else type(z).__name__
        raise CurvatureError(
            f"detection needs a network that returns a mapping of {', '.join(DETECTOR_OUTPUTS)}; "
            f"it returns {has}"
        )
    if y.ndim != 3 or y.shape[-1] != 5 or len(y) != len(z["anchors"]):
        raise CurvatureError(
            f"detection needs targets (B, boxes, 5): x1, y1, x2, y2, class; got {tuple(y.shape)}"
        )


def _taken(values: Tensor, index: Tensor) -> Tensor:
    """Return each place's own: (B, M, F) by (B, N) to (B, N, F)."""
    if not values.shape[1]:
        return values.new_zeros(*index.shape, values.shape[-1])
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def _half_each(a: Tensor, b: Tensor) -> Tensor:
    """Return weights that make half of 1 for each of two sets of an image."""
    dtype = torch.get_default_dtype()
    a, b = a.to(dtype), b.to(dtype)
    return a / (2 * a.sum(1, keepdim=True).clamp_min(1)) + b / (
        2 * b.sum(1, keepdim=True).clamp_min(1)
    )
