"""Processes that check what was sent: their environment, and their bounds."""

import json
import os
import subprocess
import sys

import pytest

from mlhf.core import bounded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends with a parent")

MIB = 2**20
ENTERED = (
    "import json, os, resource; from mlhf.core.bounded import enter_bounds; enter_bounds()\n"
    "print(json.dumps([resource.getrlimit(resource.RLIMIT_DATA)[0],"
    " resource.getrlimit(resource.RLIMIT_CORE)[0], sorted(os.environ)]))\n"
)


def _run(script, memory_bytes):
    options = bounded.command("unused", memory_bytes)[3:]
    return subprocess.run(
        [sys.executable, "-c", script, *options],
        env=bounded.environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_bounds_are_entered_and_no_secret_comes_along(monkeypatch):
    monkeypatch.setenv("MLHF_DATABASE_URL", "postgresql://secret")
    data, core, names = json.loads(_run(ENTERED, 900 * MIB))
    assert (data, core) == (900 * MIB, 0)
    assert not [name for name in names if name.startswith("MLHF_")]
    assert "PYTHONPATH" in names


def test_reading_a_table_leaves_room_in_the_bounds(monkeypatch):
    """A reservation of Arrow's would take a GiB of them."""
    pytest.importorskip("pyarrow")
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    script = (
        "from mlhf.core.bounded import enter_bounds; enter_bounds()\n"
        "import pyarrow; held = pyarrow.array([1, 2, 3]); print(len(bytearray(900 * 2**20)))\n"
    )
    assert int(_run(script, 1600 * MIB)) == 900 * MIB


def test_a_process_of_another_parent_ends():
    options = ["--parent", str(os.getppid()), "--memory", str(900 * MIB)]
    done = subprocess.run([sys.executable, "-c", ENTERED, *options], capture_output=True)
    assert done.returncode < 0
    assert not done.stdout
