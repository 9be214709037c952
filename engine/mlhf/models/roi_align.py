"""ROI pooling by bilinear interpolation (He et al. 2017, "Mask R-CNN"), in operations of torch."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

MOST_SAMPLES = 16


def roi_align(
    features: Tensor,
    boxes: Tensor,
    output_size: int | list[int] | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> Tensor:
    """Return the features of each box, averaged over a grid of interpolated points.

    Bilinear interpolation is separable, so each bin is A_y·F·A_xᵀ with two small matrices: it has
    all derivatives in the features, and those in the boxes almost everywhere. It computes what
    ``torchvision.ops.roi_align`` does; there boxes of different images are in one list.

    Args:
        features: (B, C, H, W).
        boxes: (B, K, 4): x1, y1, x2, y2, as many for each image.
        output_size: h and w of the bins of a box, or both in one.
        spatial_scale: What turns coordinates of boxes into those of features.
        sampling_ratio: Points of a bin along each axis, 1 to 16.
        aligned: Whether the centre of a pixel is at half of its side.

    Returns:
        (B, K, C, h, w).

    Raises:
        ValueError: shapes do not fit, or a size is out of range.
    """
    if has_torch_function((features, boxes)):  # as when a module is traced: one operation
        result: Any = handle_torch_function(
            roi_align,
            (features, boxes),
            features,
            boxes,
            output_size,
            spatial_scale=spatial_scale,
            sampling_ratio=sampling_ratio,
            aligned=aligned,
        )
        return result  # type: ignore[no-any-return]
    height, width = (output_size,) * 2 if isinstance(output_size, int) else output_size
    if features.ndim != 4 or boxes.ndim != 3 or boxes.shape[-1] != 4:
        raise ValueError(
            f"roi_align takes features (B, C, H, W) and boxes (B, K, 4); got "
            f"{tuple(features.shape)} and {tuple(boxes.shape)}"
        )
    if features.shape[0] != boxes.shape[0]:  # no len(), which torch.export takes for a constant
        raise ValueError(f"{features.shape[0]} images, but boxes of {boxes.shape[0]}")
    if not 1 <= sampling_ratio <= MOST_SAMPLES:
        raise ValueError(f"sampling_ratio={sampling_ratio} should be from 1 to {MOST_SAMPLES}")
    if not (1 <= height <= 256 and 1 <= width <= 256):
        raise ValueError(f"output_size={output_size} should be from 1 to 256")
    scaled = boxes.to(features.dtype) * spatial_scale - (0.5 if aligned else 0.0)
    x1, y1, x2, y2 = scaled.unbind(-1)
    side_x, side_y = x2 - x1, y2 - y1
    if not aligned:
        side_x, side_y = side_x.clamp_min(1.0), side_y.clamp_min(1.0)
    rows = _interpolation(y1, side_y, height, features.shape[2], sampling_ratio)
    columns = _interpolation(x1, side_x, width, features.shape[3], sampling_ratio)
    across = torch.einsum("bkph,bchw->bkcpw", rows, features)
    return torch.einsum("bkcpw,bkqw->bkcpq", across, columns)


def _interpolation(start: Tensor, side: Tensor, bins: int, size: int, samples: int) -> Tensor:
    """Return A (B, K, bins, size): row p interpolates the points of bin p, and averages them."""
    at = (torch.arange(bins * samples, device=start.device, dtype=start.dtype) + 0.5) / samples
    points = start.unsqueeze(-1) + at * (side / bins).unsqueeze(-1)
    inside = (points >= -1) & (points <= size)  # beyond, features are 0
    points = points.clamp(0, size - 1)
    grid = torch.arange(size, device=start.device, dtype=start.dtype)
    weights = (1 - (points.unsqueeze(-1) - grid).abs()).clamp_min(0) * inside.unsqueeze(-1)
    return weights.reshape(*start.shape, bins, samples, size).mean(3)
