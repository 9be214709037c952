"""ROI pooling against torchvision's, its derivatives, and as one operation of a graph."""

import itertools

import pytest
import torch
from torch import nn

import mlhf
from mlhf.models.graph.checks import examine


@pytest.fixture
def boxes():
    torch.manual_seed(0)
    corners = torch.rand(2, 5, 2, 2, dtype=torch.float64) * 40 - 4  # beyond the image too
    low, high = corners.amin(2), corners.amax(2)
    return torch.cat([low, high], -1)


def plain(features, boxes, size, scale, samples, aligned):
    """Point by point, with the rules of torchvision.ops.roi_align."""
    height, width = (size, size) if isinstance(size, int) else size
    _, channels, rows, columns = features.shape
    result = torch.zeros(*boxes.shape[:2], channels, height, width, dtype=features.dtype)
    for i, k in itertools.product(*map(range, boxes.shape[:2])):
        x1, y1, x2, y2 = (boxes[i, k] * scale - (0.5 if aligned else 0.0)).tolist()
        sides = [y2 - y1, x2 - x1]
        if not aligned:
            sides = [max(side, 1.0) for side in sides]
        for p, q, u, v in itertools.product(*map(range, (height, width, samples, samples))):
            y = y1 + (p + (u + 0.5) / samples) * sides[0] / height
            x = x1 + (q + (v + 0.5) / samples) * sides[1] / width
            if not (-1 <= y <= rows and -1 <= x <= columns):
                continue
            y, x = (min(max(at, 0.0), last - 1) for at, last in ((y, rows), (x, columns)))
            top, left = min(int(y), rows - 2), min(int(x), columns - 2)
            down, right = y - top, x - left
            for row, of_row in ((top, 1 - down), (top + 1, down)):
                for column, of_column in ((left, 1 - right), (left + 1, right)):
                    part = of_row * of_column / samples**2
                    result[i, k, :, p, q] += part * features[i, :, row, column]
    return result


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("size", "ratio"), [(3, 2), ((2, 4), 1), (1, 3)])
def test_it_is_that_of_torchvision(boxes, aligned, size, ratio):
    features = torch.randn(2, 3, 8, 9, dtype=torch.float64)
    found = mlhf.roi_align(features, boxes, size, 0.25, ratio, aligned)
    torch.testing.assert_close(found, plain(features, boxes, size, 0.25, ratio, aligned))
    try:
        from torchvision import ops
    except (ImportError, RuntimeError):  # absent, or of another torch
        return
    theirs = ops.roi_align(features, list(boxes), size, 0.25, ratio, aligned)
    torch.testing.assert_close(found.flatten(0, 1), theirs)


def test_it_has_first_and_second_derivatives(boxes):
    features = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    inner = (boxes.clamp(1, 30) + 0.123).requires_grad_()
    of = lambda f, b: mlhf.roi_align(f, b, 2, 0.25).square()  # noqa: E731
    assert torch.autograd.gradcheck(of, (features, inner))
    small = features.detach()[:, :1, :4, :4].requires_grad_()
    of_features = lambda f: mlhf.roi_align(f, inner.detach()[:, :2], 2, 0.25).square()  # noqa: E731
    assert torch.autograd.gradgradcheck(of_features, (small,))


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.out = nn.Linear(12, 2)
        self.register_buffer("boxes", torch.tensor([[0.0, 0, 8, 8], [2, 2, 6, 7]]))

    def forward(self, x):
        boxes = self.boxes.unsqueeze(0).expand(x.shape[0], -1, -1)
        return self.out(mlhf.roi_align(self.conv(x), boxes, 2).flatten(2)).sum(1)


def test_it_is_one_operation_of_a_graph():
    module = Pooled()
    network = mlhf.trace(module, torch.randn(2, 1, 8, 8))
    assert [n.op for n in network.graph.nodes].count("mlhf.roi_align") == 1
    assert examine(network.graph).outputs[""].shape == [2]
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(network.module()(x), module(x))


def test_what_does_not_fit_is_refused():
    features, boxes = torch.randn(2, 3, 8, 8), torch.zeros(2, 5, 4)
    for wrong, words in (
        (lambda: mlhf.roi_align(features, boxes[0], 2), "takes features"),
        (lambda: mlhf.roi_align(features, boxes[:1], 2), "2 images, but boxes of 1"),
        (lambda: mlhf.roi_align(features, boxes, 2, 1.0, 0), "sampling_ratio=0"),
        (lambda: mlhf.roi_align(features, boxes, 0), "output_size=0"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()
    torch.testing.assert_close(mlhf.roi_align(features, boxes[:, :0], 2).shape, (2, 0, 3, 2, 2))
