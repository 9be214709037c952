"""MLHF in other people's trainers: the examples, and what their tests do not show."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.foreign.packages import import_torchvision

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network nobody waits for one."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def example(name: str, needs: str) -> dict[str, Any]:
    """The names in an example; skipped where what it is about is not installed."""
    import_torchvision()  # trainers do so, and that of another torch fails
    pytest.importorskip(needs, reason=f"needs {needs}: pip install '.[trainers]'")
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*_*.py")), ids=lambda path: path.stem)
def test_a_trainers_loop_changes_under_ten_lines(path: Path) -> None:
    marked = [line for line in path.read_text().splitlines() if "  # MLHF" in line]
    assert len(marked) < 10


def test_accelerate_trains_and_accumulates() -> None:
    losses = example("accelerate_loop", "accelerate")["main"](epochs=4)
    assert losses[-1] < 0.75 * losses[0]


def test_accelerate_trains_in_bfloat16() -> None:
    main = example("accelerate_loop", "accelerate")["main"]
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # one to a process, else
    losses = main("bf16", epochs=3)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert losses[-1] < losses[0]


def test_lightning_trains_by_its_own_loop(tmp_path: Path) -> None:
    first, last = example("lightning_module", "lightning")["main"](str(tmp_path), epochs=4)
    assert last < 0.75 * first


def test_hugging_faces_trainer_trains_and_resumes(tmp_path: Path) -> None:
    names = example("huggingface_trainer", "transformers")
    first, last = names["main"](str(tmp_path), steps=16)
    assert last < first
    state = torch.load(tmp_path / "checkpoint-8" / "optimizer.pt", weights_only=True)
    assert "bert.embeddings.word_embeddings.weight" in state["param_groups"][0]["param_names"]
