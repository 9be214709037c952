"""Networks are checked by forks of a warm process: each within its bounds, and alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mlhf.core.errors import DataError, SpecError
from mlhf.models.graph.examination import answer
from mlhf_service.networks.examiner import Bounds, Examiner, ExaminerLostError
from mlhf_service.settings import Settings

AMPLE = Bounds(2 * 2**30, 120.0)
GRAPH = {
    "inputs": [{"name": "x", "shape": [4]}],
    "layers": {"head": {"type": "Linear", "args": {"in_features": 4, "out_features": 3}}},
    "nodes": [{"name": "y", "layer": "head", "args": ["%x"]}],
    "outputs": "%y",
}


@pytest.fixture(scope="module")
def examiner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examiner]:
    """One for all tests here: to import torch is the slow part."""
    folder = tmp_path_factory.mktemp("examined")
    examiner = Examiner(Settings(_env_file=None, data_dir=folder), folder)
    yield examiner
    examiner.stop()


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return _write(tmp_path, GRAPH)


def _write(folder: Path, graph: object) -> Path:
    path = folder / "network.json"
    path.write_text(json.dumps(graph))
    return path


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if _status(pid)["State"].startswith("Z"):
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_the_answer_is_the_same_as_here(examiner: Examiner, graph: Path) -> None:
    here = answer({"graph": graph, "weights": None})
    assert examiner.ask(graph, None, AMPLE) == here
    sizes = examiner.examine(graph, None, AMPLE)
    assert (sizes.parameters, sizes.outputs[""].shape) == (15, [3])


def test_what_is_wrong_is_said(examiner: Examiner, tmp_path: Path) -> None:
    wrong = json.loads(json.dumps(GRAPH))
    wrong["nodes"][0]["layer"] = "nowhere"
    with pytest.raises(SpecError) as refused:
        examiner.examine(_write(tmp_path, wrong), None, AMPLE)
    assert refused.value.pointer == "/nodes/0/layer"
    weights = tmp_path / "weights"
    weights.write_bytes(b"none")
    with pytest.raises(DataError, match="no safetensors file"):
        examiner.examine(_write(tmp_path, GRAPH), weights, AMPLE)


@pytest.mark.parametrize(
    "bounds", [Bounds(2 * 2**30, 1e-4), Bounds(2**20, 120.0)], ids=["time", "memory"]
)
def test_a_check_beyond_its_bounds_ends_alone(
    examiner: Examiner, tmp_path: Path, bounds: Bounds
) -> None:
    large = json.loads(json.dumps(GRAPH))
    large["inputs"][0]["shape"] = [2000]
    large["layers"]["head"]["args"] = {"in_features": 2000, "out_features": 2000}
    path, weights = _write(tmp_path, large), tmp_path / "weights"
    save_file({"head.weight": torch.zeros(2000, 2000), "head.bias": torch.zeros(2000)}, weights)
    assert examiner.examine(path, weights, AMPLE).parameters == 2000 * 2001
    warm = examiner.pid
    with pytest.raises(DataError, match="could not be checked within"):
        examiner.examine(path, weights, bounds)
    assert examiner.examine(path, weights, AMPLE).parameters == 2000 * 2001
    assert examiner.pid == warm


def test_a_warm_process_that_was_killed_is_replaced(examiner: Examiner, graph: Path) -> None:
    examiner.examine(graph, None, AMPLE)
    warm = examiner.pid
    assert warm is not None
    os.kill(warm, signal.SIGKILL)
    assert examiner.examine(graph, None, AMPLE).parameters == 15
    assert examiner.pid not in (None, warm)


def test_it_has_one_thread_and_no_capabilities(examiner: Examiner, graph: Path) -> None:
    examiner.examine(graph, None, AMPLE)
    assert examiner.pid is not None
    status = _status(examiner.pid)
    assert status["Threads"] == "1"  # a fork has no others
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    secrets = Path(f"/proc/{examiner.pid}/environ").read_bytes()
    assert b"MLHF_" not in secrets


def test_it_ends_when_nobody_asks(examiner: Examiner, graph: Path) -> None:
    examiner.examine(graph, None, AMPLE)
    warm = examiner.pid
    assert warm is not None
    examiner.stop_if_idle(600.0)
    assert examiner.pid == warm
    examiner.stop_if_idle(0.0)
    assert examiner.pid is None
    assert _is_gone(warm)


def test_it_ends_with_a_killed_api_that_never_imports_torch(tmp_path: Path, graph: Path) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
from mlhf_service.networks.examiner import Bounds, Examiner
from mlhf_service.settings import Settings
examiner = Examiner(Settings(_env_file=None, data_dir=Path({str(tmp_path)!r})), Path("/"))
examiner.examine(Path({str(graph)!r}), None, Bounds({AMPLE.memory_bytes}, {AMPLE.seconds}))
assert "torch" not in sys.modules
print(examiner.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert _is_gone(int(ended.stdout))


def test_without_torch_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, graph: Path
) -> None:
    monkeypatch.setattr("mlhf_service.networks.examiner.find_spec", lambda name: None)
    examiner = Examiner(Settings(_env_file=None, data_dir=tmp_path), tmp_path)
    with pytest.raises(ExaminerLostError, match="torch"):
        examiner.examine(graph, None, AMPLE)
