"""The loss of a two-stage detector, its curvature, and average precision by another way."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.ggn import GGN
from mlhf.curvature.microbatches import MicrobatchCurvature
from mlhf.losses.boxes import decode_boxes, encode_boxes, overlap, suppress
from mlhf.losses.detection import Detection, Found, average_precision

D = torch.float64


def boxes_of(generator, *shape):
    corner = torch.rand(*shape, 2, dtype=D, generator=generator) * 20
    return torch.cat([corner, corner + 3 + 9 * torch.rand(*shape, 2, generator=generator)], -1)


def targets(generator):
    """Three images: two boxes, none, and one with a row that fills up."""
    y = torch.zeros(3, 2, 5, dtype=D)
    y[..., :4] = boxes_of(generator, 3, 2)
    y[..., 4] = torch.tensor([[0.0, 1], [-100, -100], [1, -100]])
    return y


class Small(nn.Module):
    """Outputs of the right shapes; anchors and regions do not depend on parameters."""

    def __init__(self, y):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.body = nn.Linear(3, 4)
        self.out = nn.Linear(4, 6 * 5 + 4 * (3 + 4))
        anchors, regions = boxes_of(generator, 6), boxes_of(generator, 4)
        # Some that overlap well.
        self.register_buffer("anchors", torch.cat([anchors[:4], y[0, :2, :4] + 0.4]))
        self.register_buffer("regions", torch.cat([regions[:2], y[0, :1, :4], y[2, :1, :4] - 0.3]))

    def forward(self, x):
        batch = len(x)
        parts = self.out(torch.tanh(self.body(x))).split([6, 24, 12, 16], 1)
        return {
            "anchors": self.anchors.expand(batch, -1, -1),
            "objectness": parts[0],
            "anchor_deltas": parts[1].reshape(batch, 6, 4),
            "regions": self.regions.expand(batch, -1, -1),
            "classes": parts[2].reshape(batch, 4, 3),
            "region_deltas": parts[3].reshape(batch, 4, 4),
        }


@pytest.fixture
def case():
    torch.manual_seed(0)
    y = targets(torch.Generator().manual_seed(3))
    return Small(y).to(D), torch.randn(3, 3, dtype=D), y


def test_the_loss_by_hand(case):
    """The same, box by box in plain Python."""
    model, x, y = case
    z = model(x)
    total = 0.0
    for i in range(3):
        real = [row for row in y[i].tolist() if row[4] >= 0]
        for places, logits, deltas, first in (
            (z["anchors"][i], z["objectness"][i], z["anchor_deltas"][i], True),
            (z["regions"][i], z["classes"][i], z["region_deltas"][i], False),
        ):
            share = overlap(places, torch.tensor(real, dtype=D).reshape(-1, 5)[:, :4]).tolist()
            objects, background = [], []
            for at in range(len(places)):
                best = max(range(len(real)), key=lambda b, at=at: share[at][b], default=None)
                if best is not None and first:
                    for b in range(len(real)):
                        column = [row[b] for row in share]
                        if column[at] == max(column) > 0 and (
                            share[at][best] < 0.5 or column[at] > share[at][best]
                        ):
                            best = b
                    is_best = any(
                        share[at][b] == max(row[b] for row in share) > 0 for b in range(len(real))
                    )
                else:
                    is_best = False
                if best is not None and (share[at][best] >= 0.5 or is_best):
                    objects.append((at, best))
                elif not first or best is None or share[at][best] < 0.3:
                    background.append(at)
            scores = 0.0
            for group, weight in (
                (objects, len(objects)),
                ([(b, None) for b in background], len(background)),
            ):
                for at, box in group:
                    if first:
                        sign = 1.0 if box is not None else -1.0
                        loss = nn.functional.softplus(-sign * logits[at])
                    else:
                        label = 0 if box is None else int(real[box][4]) + 1
                        loss = -logits[at].log_softmax(0)[label]
                    scores = scores + loss / (2 * weight)
            of_boxes = [
                nn.functional.huber_loss(
                    deltas[at], encode_boxes(torch.tensor(real[box][:4], dtype=D), places[at])
                )
                for at, box in objects
            ]
            total = total + scores + (sum(of_boxes) / len(of_boxes) if of_boxes else 0.0)
    torch.testing.assert_close(Detection()(z, y), total / 3)


def test_its_gauss_newton_matrix_is_that_of_a_dense_product(case):
    model, x, y = case
    loss, parameters = Detection(), list(model.parameters())
    z = model(x)
    learned = [k for k, v in z.items() if v.requires_grad]
    flat = torch.cat([z[k].reshape(-1) for k in learned])
    rows = [torch.autograd.grad(e, parameters, retain_graph=True) for e in flat]
    jacobian = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])

    def of(v):
        parts = v.split([z[k].numel() for k in learned])
        own = {k: p.view(z[k].shape) for k, p in zip(learned, parts, strict=True)}
        return loss({**z, **own}, y)

    hessian = torch.autograd.functional.hessian(of, flat.detach())
    assert torch.linalg.eigvalsh(hessian).min() > -1e-12, "it is convex"
    v = [torch.randn_like(p) for p in parameters]
    wanted = jacobian.T @ hessian @ jacobian @ torch.cat([t.reshape(-1) for t in v])
    for matrix in (
        GGN(model, loss, x, y),
        MicrobatchCurvature(model, loss, x, y, size=2),  # images of one count the same
    ):
        found = torch.cat([t.reshape(-1) for t in matrix.product(v)])
        torch.testing.assert_close(found, wanted)


def test_boxes_go_there_and_back():
    generator = torch.Generator().manual_seed(0)
    a, b = boxes_of(generator, 7), boxes_of(generator, 7)
    torch.testing.assert_close(decode_boxes(b, encode_boxes(a, b)), a)
    shares = overlap(a, b)
    for i, j in ((0, 0), (2, 5), (6, 1)):
        low, high = torch.maximum(a[i, :2], b[j, :2]), torch.minimum(a[i, 2:], b[j, 2:])
        both = float((high - low).clamp_min(0).prod())
        areas = [float((box[2:] - box[:2]).prod()) for box in (a[i], b[j])]
        assert float(shares[i, j]) == pytest.approx(both / (sum(areas) - both))


def test_of_boxes_that_overlap_the_best_is_kept():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 5, 10, 15], [20, 20, 30, 30]])
    scores = torch.tensor([0.5, 0.9, 0.8, 0.1])
    assert suppress(boxes, scores, 0.5).tolist() == [1, 2, 3]
    assert suppress(boxes, scores, 0.2).tolist() == [1, 3]
    assert suppress(boxes[:0], scores[:0], 0.5).tolist() == []


def plain_precision(found, least):
    """Average precision of each class by plain loops, as in PASCAL VOC 2010."""
    areas = []
    for label in sorted({int(v) for f in found for v in f.true_labels}):
        rows = [
            (float(s), i, b)
            for i, f in enumerate(found)
            for b, s, own in zip(f.boxes, f.scores, f.labels, strict=True)
            if own == label
        ]
        rows.sort(key=lambda row: -row[0])
        taken, hits = set(), []
        for _, i, box in rows:
            best, place = 0.0, None
            for j, (true, own) in enumerate(
                zip(found[i].true_boxes, found[i].true_labels, strict=True)
            ):
                share = float(overlap(box[None], true[None]))
                if own == label and share > best:
                    best, place = share, (i, j)
            hits.append(best >= least and place not in taken)
            if hits[-1]:
                taken.add(place)
        total = sum(int((f.true_labels == label).sum()) for f in found)
        recall = np.cumsum(hits) / total
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        area, before = 0.0, 0.0
        for at, r in enumerate(recall):
            area += (r - before) * max(precision[at:])
            before = r
        areas.append(area)
    return float(np.mean(areas))


def test_average_precision_by_another_way():
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(12):
        count = int(torch.randint(1, 4, (1,), generator=generator))
        true = boxes_of(generator, count)
        labels = torch.randint(2, (count,), generator=generator)
        near = true + torch.randn(count, 4, generator=generator)
        guesses = torch.cat([near, boxes_of(generator, 2)])
        own = torch.cat([labels, torch.randint(2, (2,), generator=generator)])
        scores = torch.rand(len(own), generator=generator)
        found.append(Found(guesses, scores, own, true, labels))
    for least in (0.5, 0.75):
        value = average_precision(found, least)
        assert 0 < value < 1
        assert value == pytest.approx(plain_precision(found, least))
    perfect = [
        Found(
            f.true_boxes, torch.ones(len(f.true_labels)), f.true_labels, f.true_boxes, f.true_labels
        )
        for f in found
    ]
    assert average_precision(perfect) == 1
    empty = Found(
        torch.zeros(0, 4),
        torch.zeros(0),
        torch.zeros(0).long(),
        torch.zeros(0, 4),
        torch.zeros(0).long(),
    )
    assert np.isnan(average_precision([empty]))


def test_what_does_not_fit_is_refused(case):
    model, x, y = case
    z = model(x)
    with pytest.raises(CurvatureError, match="it returns Tensor"):
        Detection()(z["objectness"], y)
    with pytest.raises(CurvatureError, match="returns anchors"):
        Detection()({"anchors": z["anchors"]}, y)
    with pytest.raises(CurvatureError, match=r"targets \(B, boxes, 5\)"):
        Detection()(z, y[..., :4])
    none = pytree.tree_map(lambda t: t[:, :0], y)
    assert torch.isfinite(Detection()(z, none)), "no image has a box"
