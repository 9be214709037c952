"""The wheel, and environments that hold it and no more than what it says it needs."""

import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def build(folder: Path, **environment: str) -> Path:
    """Build the wheel as it is built with torch at hand, into a folder."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            str(ROOT),
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--quiet",
            "--disable-pip-version-check",
            "-w",
            str(folder),
        ],
        env={**os.environ, **environment},
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel without compiled operators: these take a while."""
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling")
    return build(tmp_path_factory.mktemp("dist"), MLHF_BUILD_KERNELS="0")


def described(wheel: Path) -> Message:
    """A wheel's METADATA."""
    with ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def names(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture
def install(wheel: Path, tmp_path: Path) -> Callable[..., Path]:
    """Install the wheel with some extras into an environment; returns its folder.

    What it requires is linked from the environment that the tests run in.
    """

    def made(*extras: str) -> Path:
        folder = tmp_path / "venv"
        venv.create(folder, symlinks=True)
        (site,) = folder.glob("lib/python*/site-packages")
        for entry in _required(described(wheel), extras):
            (site / entry.name).symlink_to(entry)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "--python",
                str(folder / "bin/python"),
                "install",
                "--no-deps",
                "--no-index",
                "--no-compile",
                "--quiet",
                "--disable-pip-version-check",
                str(wheel),
            ],
            check=True,
        )
        return folder

    return made


def _required(wheel: Message, extras: Iterable[str]) -> Iterator[Path]:
    """The files and folders in site-packages of everything that the wheel needs."""
    todo = [Requirement(f"mlhf[{','.join(extras)}]")]
    seen, entries = set(), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        if name == "mlhf":
            requires = wheel.get_all("Requires-Dist") or []
        else:
            distribution = metadata.distribution(name)
            requires = distribution.requires or []
            entries |= {
                Path(str(distribution.locate_file(file.parts[0])))
                for file in distribution.files or ()
                if file.parts[0] not in ("..", "__pycache__")
            }
        for line in requires:
            further = Requirement(line)
            if further.marker is None or any(
                further.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                todo.append(further)
    yield from entries


def clean_environment(home: Path) -> dict[str, str]:
    """Of a user who knows nothing of this checkout."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLHF_", "PYTHON", "PYTEST", "VIRTUAL_ENV"))
    }
    home.mkdir(exist_ok=True)
    return {**kept, "HOME": str(home)}
