"""How long a folder of small images takes to be accepted: 70,000 PNGs of 28x28 in a zip.

    python -m bench.image_upload [--images 70000]

Prints wall and CPU seconds of the steps of an upload: unpacking, checking every image, hashing,
and making it durable. With OMP_NUM_THREADS=1 and one core (``taskset -c 0``) it is the number
that is stated.
"""

import argparse
import io
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from mlhf.data import specs
from mlhf.data.formats import IMAGE_SUFFIXES
from mlhf_service.datasets import archives, uploads
from mlhf_service.storage.folder import FolderStorage


def main() -> None:
    """Make the zip, and take it in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=70_000)
    count = parser.parse_args().images
    packed = zipped(count)
    print(f"{count} images, {packed.getbuffer().nbytes / 2**20:.1f} MiB")
    began = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as made:
        folder, stored = Path(made, "uploaded"), FolderStorage(Path(made, "stored"))
        folder.mkdir()
        with timed("unpack"):
            archives.unpack_images(packed, folder, IMAGE_SUFFIXES, 2 * count, 2**34)
        with timed("check"):
            found = specs.inspect("image_folder", {}, folder)
        with timed("digest"):
            specs.digest("image_folder", {}, folder)
        with timed("size and store"):
            uploads.size_of(folder)
            stored.put_folder("datasets/one", folder)
        print(f"{'all':14} {time.perf_counter() - began[0]:6.1f} s, "
              f"{time.process_time() - began[1]:6.1f} s of CPU")  # fmt: skip
    print(found.info)


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Print how long the block takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name:14} {wall:6.1f} s, {cpu:6.1f} s of CPU")


def zipped(count: int) -> io.BytesIO:
    """Return a zip of noisy blobs of ten classes, six sevenths of them in train/."""
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for index in range(count):
            pixels = np.zeros((28, 28), np.uint8)
            pixels[6:22, 8:20] = rng.integers(0, 256, (16, 12)) & 0xF0
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            split = "train" if index < count * 6 // 7 else "test"
            archive.writestr(f"{split}/{index % 10}/{index:05d}.png", png.getvalue())
    return out


if __name__ == "__main__":
    main()
