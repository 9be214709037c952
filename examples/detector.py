"""A two-stage detector with ROI pooling, on images that are drawn here, with two optimizers.

    python examples/detector.py

The data is a folder in the layout of COCO, which may also be uploaded to the service as a zip; the
network is an ordinary module, traced to a graph. Prints the average precision of each optimizer.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import mlhf
from mlhf.losses.boxes import decode_boxes

SIDE, STRIDE, REGIONS = 32, 4, 12
CLASSES = ("square", "disc", "cross")


def draw(generator: np.random.Generator) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """Return an image with up to three things, and their boxes x, y, width, height and class."""
    image = generator.normal(60, 12, (SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    boxes: list[tuple[float, ...]] = []
    for _ in range(generator.integers(0, 4)):
        size, label = int(generator.integers(7, 15)), int(generator.integers(len(CLASSES)))
        left, top = generator.integers(0, SIDE - size, 2)
        u, v = (x - left) / size * 2 - 1, (y - top) / size * 2 - 1
        inside = (abs(u) < 1) & (abs(v) < 1)
        shape = (inside, u**2 + v**2 < 1, inside & ((abs(u) < 0.35) | (abs(v) < 0.35)))[label]
        if any(abs(left - b[0]) < 10 and abs(top - b[1]) < 10 for b in boxes):
            continue  # things that hide each other
        image[shape] = generator.uniform(150, 240)
        boxes.append((float(left), float(top), float(size), float(size), label))
    return image.clip(0, 255).astype(np.uint8), boxes


def write_data(folder: Path, count: int, seed: int = 0) -> Path:
    """Write images and a COCO document into a folder."""
    generator = np.random.default_rng(seed)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for at in range(count):
        pixels, boxes = draw(generator)
        name = f"{at:05d}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": at, "file_name": name, "width": SIDE, "height": SIDE})
        for *box, label in boxes:
            number = len(annotations)
            annotations.append(
                {"id": number, "image_id": at, "category_id": int(label), "bbox": box}
            )
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": at, "name": name} for at, name in enumerate(CLASSES)],
    }
    (folder / "instances.json").write_text(json.dumps(document))
    return folder


class Detector(nn.Module):
    """Anchors of two sizes at each place; the likeliest regions are pooled and classified."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        wide = 2 * width
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, wide, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, padding=1),
            nn.ReLU(),
        )
        self.objectness = nn.Conv2d(wide, 2, 3, padding=1)
        self.anchor_deltas = nn.Conv2d(wide, 8, 3, padding=1)
        self.hidden = nn.Linear(9 * wide, 2 * wide)
        self.classes = nn.Linear(2 * wide, len(CLASSES) + 1)
        self.region_deltas = nn.Linear(2 * wide, 4)
        centre = torch.arange(STRIDE / 2, SIDE, STRIDE)
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        half = torch.tensor([4.0, 7.0]).reshape(2, 1, 1)
        anchors = torch.stack([x - half, y - half, x + half, y + half], -1)
        self.register_buffer("anchors", anchors.reshape(-1, 4))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.body(image)
        batch = features.shape[0]
        scores = self.objectness(features)
        deltas = self.anchor_deltas(features).reshape(batch, 2, 4, *features.shape[2:])
        deltas = deltas.permute(0, 1, 3, 4, 2).reshape(batch, -1, 4)
        anchors = self.anchors.unsqueeze(0).expand(batch, -1, -1)
        regions = self._regions(scores.detach(), decode_boxes(anchors, deltas.detach()))
        pooled = mlhf.roi_align(features, regions, 3, 1 / STRIDE)
        hidden = torch.relu(self.hidden(pooled.flatten(2)))
        return {
            "anchors": anchors,
            "objectness": scores.flatten(1),
            "anchor_deltas": deltas,
            "regions": regions,
            "classes": self.classes(hidden),
            "region_deltas": self.region_deltas(hidden),
        }

    def _regions(self, scores: Tensor, boxes: Tensor) -> Tensor:
        """The likeliest boxes; of neighbours only the likeliest."""
        highest = torch.nn.functional.max_pool2d(scores, 3, stride=1, padding=1)
        peaks = torch.where(scores >= highest, scores, scores - 100).flatten(1)
        chosen = peaks.topk(REGIONS).indices.unsqueeze(-1).expand(-1, -1, 4)
        return boxes.gather(1, chosen).clamp(0, SIDE)


def main(images: int = 400, steps: int = 400, folder: Path | None = None) -> dict[str, float]:
    """Train with both optimizers; return the average precision of each on the test images."""
    with tempfile.TemporaryDirectory() as scratch:
        root = folder or Path(scratch)
        data = write_data(root / "data", images)
        torch.manual_seed(0)
        network = mlhf.trace(Detector(), torch.randn(2, 1, SIDE, SIDE)).save(root / "detector")
        found = {}
        for name, params in (("mlhf", {}), ("adam", {"lr": 0.003})):
            result = mlhf.train(
                {
                    "model": {"name": "graph", "params": {"network": str(network)}},
                    "dataset": {"name": "coco", "root": str(data)},
                    "optimizer": {"name": name, "params": params},
                    "budget": {"steps": steps},
                    "evaluation": {"every_epochs": 20},
                    "batch_size": 32,
                },
                run_dir=root / name,
            )
            summary = result.summary
            found[name] = float(summary["test_average_precision"]["last"])
            print(
                f"{name:6s} test loss {summary['test_loss']['last']:.3f}, average precision "
                f"{summary['train_average_precision']['last']:.3f} on the training images, "
                f"{found[name]:.3f} on the test images, {result.totals['wall_seconds']:.0f} s"
            )
    return found


if __name__ == "__main__":
    main()
