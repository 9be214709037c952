"""Programs that check what is in docker/; where one is missing its tests are skipped."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine import BARE

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


def program(name: str, package: str) -> str:
    """The path of a program, beside this Python or on the path."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if BARE or found is None:
        pytest.skip(f"{name} is not installed (pip install {package})")
    return found


def output(*command: str, cwd: Path = ROOT) -> str:
    """What a program prints; its failure is the test's."""
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
