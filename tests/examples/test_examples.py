"""Each example runs, and does what its first lines say."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Serving, environment, serving  # noqa: F401

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> Callable[..., Any]:
    """The ``main`` of an example."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


@pytest.fixture(autouse=True)
def denormal_numbers_stay() -> Any:
    """``own_loop`` changes this for the whole process."""
    import torch

    yield
    torch.set_flush_denormal(False)


def test_every_example_is_tested() -> None:
    tested = {"engine_alone", "own_loop", "client_sweep", "torch_loop", "detector"}
    tested |= {"accelerate_loop", "huggingface_trainer", "lightning_module"}  # test_trainers.py
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_the_engine_alone_trains_and_leaves_a_model(tmp_path: Path) -> None:
    assert example("engine_alone")(tmp_path / "output") > 0.9
    assert (tmp_path / "output" / "artifacts" / "model.json").exists()


def test_a_loop_of_ones_own_learns() -> None:
    losses = example("own_loop")()
    assert losses.keys() == {"adamw", "mlhf"}
    assert all(loss < 0.69 for loss in losses.values())  # that of guessing


def test_the_usual_loop_of_torch_learns() -> None:
    first, last = example("torch_loop")()
    assert last < 0.5 * first


def test_a_detector_finds_what_is_drawn(tmp_path: Path) -> None:
    found = example("detector")(images=120, steps=30, folder=tmp_path)
    assert found["mlhf"] > 0.8
    assert found["adam"] > 0.1


def test_the_cells_of_the_notebook_run_twice() -> None:
    """As plain code, so that no Jupyter is needed."""
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in [code[0], *code[1:], *code[1:]]:
        exec(cell, names)
    assert names["accuracy"] > 0.85


@pytest.mark.long
@pytest.mark.services
def test_the_client_runs_a_sweep(serving: Serving, tmp_path: Path) -> None:  # noqa: F811
    serving.start("serve")
    serving.wait_until_ready()
    comparison = example("client_sweep")(serving.client.url, tmp_path)
    assert [run["status"] for run in comparison["runs"]] == ["succeeded"] * 6
    assert len(comparison["groups"]) == 3
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "model.safetensors").exists()
