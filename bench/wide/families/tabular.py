"""Tables with categories, read as any user's CSV file is."""

import csv
from pathlib import Path

import numpy as np

from bench.wide.task import Array, Size, Version, WideTask
from mlhf.core.config import Component


def task(version: Version, size: Size) -> WideTask:
    """Return prices of 5 numbers and 4 categories; judged: rare classes of 8 and 3, long tails."""
    tiny = size == "tiny"
    rows = 400 if tiny else 5000
    if version == "development":
        hidden, batch, steps, seed, write = [64, 64], 128, 2000, 901, _prices
    else:
        hidden, batch, steps, seed, write = [80, 40], 96, 1800, 9901, _rare
    return WideTask(
        "tabular",
        version,
        lambda: Component(name="mlp", params={"hidden": hidden}),
        Component(name="table", params={"target": "y", "test_fraction": 0.2}),
        steps=10 if tiny else steps,
        batch_size=batch,
        train_samples=rows * 4 // 5,
        write=lambda _, folder: write(folder / "data.csv", rows, seed),
    )


def _categories(random: np.random.RandomState, rows: int, levels: list[int]) -> list[Array]:
    """Return columns of categories, the first ones of each common and the last rare."""
    columns = []
    for count in levels:
        chance = 1 / np.arange(1, count + 1)
        columns.append(random.choice(count, size=rows, p=chance / chance.sum()))
    return columns


def _prices(path: Path, rows: int, seed: int) -> None:
    random = np.random.RandomState(seed)
    numbers = random.normal(size=(rows, 5))
    kinds = _categories(random, rows, [6, 12, 20, 4])
    effects = [random.normal(size=each.max() + 1) for each in kinds]
    slopes = random.normal(size=kinds[0].max() + 1)
    price = numbers[:, 0] * slopes[kinds[0]] + np.sin(2 * numbers[:, 1]) * numbers[:, 2]
    price += sum(effect[kind] for effect, kind in zip(effects, kinds, strict=True))
    price += effects[1][kinds[1]] * effects[3][kinds[3]] + 0.1 * random.normal(size=rows)
    _write(path, numbers, kinds, [f"{value:.5g}" for value in price])


def _rare(path: Path, rows: int, seed: int) -> None:
    random = np.random.RandomState(seed)
    numbers = random.standard_t(3, size=(rows, 8)) * 10.0 ** np.arange(-2, 6)
    kinds = _categories(random, rows, [15, 30, 8])
    scaled = numbers / 10.0 ** np.arange(-2, 6)
    weights = random.normal(size=(8, 4))
    scores = np.tanh(scaled) @ weights + 1.5 * np.abs(scaled[:, :4])
    for each in kinds:
        scores += random.normal(size=(each.max() + 1, 4))[each]
    y = (scores + np.array([2.0, 1.0, 0.0, -1.5])).argmax(1)
    _write(path, numbers, kinds, ["abcd"[at] for at in y])


def _write(path: Path, numbers: Array, kinds: list[Array], y: list[str]) -> None:
    names = [f"n{i}" for i in range(numbers.shape[1])] + [f"k{i}" for i in range(len(kinds))]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "y"])
        for row, target in enumerate(y):
            cells = [f"{value:.6g}" for value in numbers[row]]
            writer.writerow([*cells, *(f"c{kind[row]}" for kind in kinds), target])
