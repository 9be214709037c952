"""The trainer process, started, asked to stop, and killed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from mlhf import train
from mlhf.core import events, process
from mlhf.core.confinement import Report
from mlhf.core.errors import DataError
from mlhf.runner import failure
from tests.waiting import DEADLINE, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def _prepare(folder, config, **run):
    folder.mkdir(exist_ok=True)
    document = {"config": config, "checkpoint_seconds": 0.05, "parent_pid": os.getpid(), **run}
    (folder / "run.json").write_text(json.dumps(document))


def _start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "mlhf.runner", str(folder)], stderr=subprocess.PIPE
    )


def _run(folder):
    trainer = _start(folder)
    _, errors = trainer.communicate(timeout=DEADLINE)
    return trainer.returncode, errors.decode()


def _read(folder):
    path = folder / "events.jsonl"
    return [e for e, _ in events.read(path)] if path.exists() else []


def _wait(folder, enough):
    until(lambda: enough(_read(folder)), "the trainer did not get there")


def _curve(found):
    return [(p["step"], p["values"]) for e in found if e["type"] == "points" for p in e["points"]]


def _digest(folder):
    return hashlib.sha256((folder / "artifacts/model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_killed_and_stopped_it_ends_as_if_undisturbed(config, tmp_path):
    run = config("hf_adam", budget={"steps": 1500}, evaluation={"every_epochs": 10})
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    _prepare(calm, run)
    assert _run(calm)[0] == process.EXIT_OK

    _prepare(rough, run)
    trainer = _start(rough)
    _wait(rough, lambda found: sum(e["type"] == "checkpoint" for e in found) >= 3)
    trainer.kill()
    trainer.communicate()
    killed = _read(rough)
    assert "finished" not in [e["type"] for e in killed]
    last = [e for e in killed if e["type"] == "checkpoint"][-1]

    _prepare(rough, run, resume=last["path"])
    trainer = _start(rough)
    _wait(rough, lambda found: sum(e["type"] == "checkpoint" for e in found[len(killed) :]) >= 2)
    trainer.send_signal(signal.SIGTERM)
    trainer.communicate(timeout=DEADLINE)
    assert trainer.returncode == process.EXIT_INTERRUPTED
    stopped = _read(rough)[len(killed) :]
    assert [e["type"] for e in stopped[-2:]] == ["checkpoint", "interrupted"]
    assert stopped[-1]["step"] == stopped[-2]["step"]

    _prepare(rough, run, resume=stopped[-2]["path"])
    assert _run(rough)[0] == process.EXIT_OK
    ended = _read(rough)[len(killed) + len(stopped) :]
    assert _digest(rough) == _digest(calm)
    # What was told after the checkpoint that was resumed from is told again, the same.
    kept = [(s, v) for s, v in _curve(killed) if s <= last["step"]]
    assert kept + _curve(stopped) + _curve(ended) == _curve(_read(calm))


def test_a_failure_is_told_in_words(config, tmp_path):
    _prepare(tmp_path, config(dataset={"name": "npz"}))
    code, errors = _run(tmp_path)
    assert code == process.EXIT_FAILED
    assert "Traceback" in errors
    last = _read(tmp_path)[-1]
    assert last["type"] == "failed"
    assert last["error"]["type"] == "data"
    assert "Traceback" not in json.dumps(last)


@pytest.mark.parametrize("message", ["can't start new thread", "could not create a primitive"])
def test_memory_refused_to_a_thread_or_a_primitive_is_told_as_memory(message):
    limited = Report(memory_limit_bytes=2**30, memory_limit_by="rlimit")
    error = failure(RuntimeError(message), limited)["error"]
    assert error["type"] == "memory"
    assert "1.0 GiB" in error["detail"]
    assert failure(RuntimeError(message), Report())["error"]["type"] == "internal"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full")
def test_a_full_disk_has_an_exit_code_of_its_own(config, tmp_path):
    _prepare(tmp_path, config(dataset={"name": "npz"}))
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    assert _run(tmp_path)[0] == process.EXIT_CANNOT_WRITE


def test_a_checkpoint_of_another_network_is_refused_in_words(config, tmp_path):
    train(config(), run_dir=tmp_path, checkpoint_seconds=0.0)
    (checkpoint, *_) = (tmp_path / "checkpoints").iterdir()
    other = config(model={"name": "mlp", "params": {"hidden": [3]}})
    with pytest.raises(DataError, match=rf"{checkpoint.name} does not fit this run"):
        train(other, run_dir=tmp_path, resume=checkpoint)


def test_the_runner_imports_no_torch_before_it_is_tied_to_its_parent():
    code = "import sys, mlhf.runner; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl")
def test_a_trainer_does_not_outlive_its_parent(tmp_path):
    child = (
        "import os, sys, time; from mlhf.core.process import die_with_parent; "
        "die_with_parent(expected_parent_pid=int(sys.argv[1])); print('tied', flush=True); "
        "time.sleep(600)"
    )
    parent = (
        "import os, subprocess, sys; p = subprocess.Popen([sys.executable, '-c', sys.argv[1], "
        "str(os.getpid())], stdout=subprocess.PIPE); p.stdout.readline(); "
        "print(p.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    out = subprocess.run(
        [sys.executable, "-c", parent, child], stdout=subprocess.PIPE, check=False
    ).stdout
    pid = int(out)
    try:
        until(lambda: not _alive(pid), "the child outlived its parent")
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl")
def test_a_child_of_another_parent_ends_itself():
    code = (
        "from mlhf.core.process import die_with_parent; "
        "die_with_parent(expected_parent_pid=1); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""


def test_an_unknown_kind_of_run_is_named(config, tmp_path):
    _prepare(tmp_path, config(), kind="nonsense")
    assert _run(tmp_path)[0] == process.EXIT_FAILED
    (failed,) = _read(tmp_path)
    assert failed["error"]["type"] == "spec"
    assert "'nonsense'" in failed["error"]["detail"]
