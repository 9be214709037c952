"""The wheel: what is in it, what it says of itself, and that it serves and trains."""

import signal
import subprocess
from pathlib import PurePosixPath

import pytest
from packaging.requirements import Requirement

from mlhf_service.cli.demo import free_port
from mlhf_service.client import Client, ServiceError
from tests.packaging.conftest import build, clean_environment, described, names
from tests.service.conftest import train
from tests.waiting import DEADLINE, until

EXTRAS = {
    *("bench", "client", "data", "dev", "docs", "onnx", "peers", "service", "telemetry"),
    "trainers",
}


def test_it_holds_both_packages_and_what_they_read(wheel):
    found = names(wheel)
    assert {PurePosixPath(name).parts[0] for name in found} == {
        "mlhf",
        "mlhf_service",
        f"mlhf-{described(wheel)['Version']}.dist-info",
    }
    for name in (
        "mlhf/py.typed",
        "mlhf/optimizers/learned/checkpoints/default.safetensors",
        "mlhf/optimizers/learned/checkpoints/l2l.safetensors",
        "mlhf/optimizers/learned/checkpoints/paper.safetensors",
        "mlhf/optimizers/mlhf/kernels/kernels.cpp",
        "mlhf/optimizers/mlhf/kernels/chunks.h",
        "mlhf/optimizers/mlhf/kernels/coordinate.h",
        "mlhf/optimizers/mlhf/kernels/kronecker.h",
        "mlhf/optimizers/mlhf/kernels/kronecker_operators.h",
        "mlhf/optimizers/mlhf/kernels/lanes.h",
        "mlhf/optimizers/mlhf/kernels/product.h",
        "mlhf/optimizers/mlhf/kernels/vectors.h",
        "mlhf_service/py.typed",
        "mlhf_service/migrations/env.py",
        "mlhf_service/migrations/script.py.mako",
        "mlhf_service/web/static/vendor/swagger-ui/LICENSE",
        "mlhf_service/web/static/vendor/swagger-ui/NOTICE",
        "mlhf_service/web/static/vendor/uplot/LICENSE",
    ):
        assert name in found
    for pattern in (
        "mlhf_service/migrations/versions/*.py",
        "mlhf_service/web/templates/*.html",
        "mlhf_service/web/static/*.css",
        "mlhf_service/web/static/*.js",
        "*.dist-info/licenses/LICENSE",
        "*.dist-info/licenses/NOTICE",
    ):
        assert any(PurePosixPath(name).match(pattern) for name in found), pattern
    for part in ("tests", "bench", "__pycache__", "conftest.py"):
        assert not any(part in PurePosixPath(name).parts for name in found), part


def test_it_says_what_it_is_and_what_it_needs(wheel):
    told = described(wheel)
    assert told["Name"] == "mlhf"
    assert told["License-Expression"] == "Apache-2.0"
    assert {"LICENSE", "NOTICE"} <= set(told.get_all("License-File"))
    assert told["Author"]
    assert told["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in told.get_all("Classifier")
    assert set(told.get_all("Provides-Extra")) == EXTRAS
    required = [Requirement(line) for line in told.get_all("Requires-Dist")]
    plain = {r.name for r in required if r.marker is None}
    assert plain == {"numpy", "pydantic", "safetensors", "torch"}


def test_operators_are_built_ahead_where_that_can_be(tmp_path):
    """By a compiler that writes nothing; test_library.py tries a real one."""
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling")
    compiler = tmp_path / "fake++"
    compiler.write_text('#!/bin/sh\nfor last; do :; done\n: > "$last"\n')
    compiler.chmod(0o700)
    wheel = build(tmp_path / "dist", CXX=str(compiler), MLHF_BUILD_KERNELS="1")
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    libraries = [name for name in names(wheel) if name.endswith(".so")]
    assert "mlhf/optimizers/mlhf/kernels/built/kernels-default.so" in libraries


def test_without_a_compiler_the_wheel_is_for_every_platform(tmp_path):
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling")
    wheel = build(tmp_path / "dist", CXX="no-such-compiler")
    assert wheel.name.endswith("-py3-none-any.whl")
    with pytest.raises(subprocess.CalledProcessError):
        build(tmp_path / "other", CXX="no-such-compiler", MLHF_BUILD_KERNELS="1")


@pytest.mark.long
@pytest.mark.services
def test_it_serves_and_trains_beside_folders_of_the_same_names_as_ours(install, tmp_path):
    here = tmp_path / "project"
    for name in ("app", "engine", "bench", "tests", "migrations"):
        (here / name).mkdir(parents=True)
        (here / name / "__init__.py").write_text(f"raise RuntimeError('the user\\'s own {name}')\n")
    port = free_port()
    command = [str(install("service") / "bin/mlhf"), "serve", "--port", str(port)]
    output = tmp_path / "out"
    with output.open("wb") as out, Client(f"http://127.0.0.1:{port}") as client:
        process = subprocess.Popen(
            [*command, "--data-dir", str(tmp_path / "data")],
            cwd=here,
            env=clean_environment(tmp_path / "home"),
            stdout=out,
            stderr=out,
        )

        def ready() -> bool:
            assert process.poll() is None, output.read_text()
            try:
                client.get("/readyz")
            except ServiceError:
                return False
            return True

        try:
            until(ready, "the service did not answer")
            optimizer = {"name": "mlhf"}
            job = client.submit(train(optimizer=optimizer, budget={"steps": 5}))
            assert client.wait(job["id"], timeout=DEADLINE)["status"] == "succeeded"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=DEADLINE) == 0, output.read_text()
