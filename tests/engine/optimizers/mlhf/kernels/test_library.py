"""The C++ operators: compiled once, found again, and refused where they would be wrong."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import library as registration

from mlhf.optimizers.mlhf.kernels import build, library, operators
from mlhf.optimizers.mlhf.kernels.__main__ import main
from mlhf.optimizers.mlhf.kernels.build import NoCompiler

INSTRUCTIONS = torch.backends.cpu.get_cpu_capability()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MLHF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_ENVIRONMENT", tmp_path / "environment")
    return tmp_path / "cache"


@pytest.fixture
def fake_compiler(monkeypatch, tmp_path):
    """A compiler that takes a while, writes a line for each call, and makes an empty file."""
    log = tmp_path / "calls"
    script = tmp_path / "fake++"
    script.write_text(
        f"""#!/bin/sh
[ "$1" = --version ] && {{ echo 1.0; exit; }}
echo call >> {log}
for last; do :; done
sleep 0.2
: > "$last"
"""
    )
    script.chmod(0o700)
    monkeypatch.setenv("CXX", str(script))
    return log


def test_a_compiler_that_fails_is_no_compiler(monkeypatch, cache):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(NoCompiler, match="false failed"):
        library.compiled("DEFAULT")
    assert not cache.exists()


def test_a_compiler_that_fails_late_leaves_nothing(monkeypatch, cache, tmp_path):
    script = tmp_path / "bad++"
    script.write_text("#!/bin/sh\n[ $1 = --version ] || { echo no such flag >&2; exit 1; }\n")
    script.chmod(0o700)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(NoCompiler, match="no such flag"):
        library.compiled("DEFAULT")
    assert not list(cache.glob("*.so"))


@pytest.mark.parametrize(
    ("compiler", "level"), [("no-such-compiler", "INFO"), ("false", "WARNING")]
)
def test_only_a_compiler_that_fails_is_warned_of_and_once(compiler, level, monkeypatch, caplog):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(library, "BUILT_AHEAD", build.SOURCES[0].with_name("nothing"))
    caplog.set_level("INFO", logger=library.__name__)
    library.obstacle.cache_clear()
    try:
        assert compiler in library.obstacle()
        assert library.obstacle()
    finally:
        library.obstacle.cache_clear()
    assert [record.levelname for record in caplog.records] == [level]


def test_it_is_compiled_once(fake_compiler, cache):
    first = library.compiled("DEFAULT")
    assert library.compiled("DEFAULT") == first
    assert first.parent == cache
    assert [p.name for p in cache.iterdir()] == [first.name]
    assert fake_compiler.read_text().splitlines() == ["call"]


def test_of_several_at_once_one_compiles(fake_compiler, cache):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=library.compiled, args=("DEFAULT",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert fake_compiler.read_text().splitlines() == ["call"]


def test_a_process_killed_while_it_compiles_stops_no_other(fake_compiler, cache):
    code = "from mlhf.optimizers.mlhf.kernels import library; library.compiled('DEFAULT')"
    killed = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 60
    while not fake_compiler.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    done = threading.Thread(target=library.compiled, args=("DEFAULT",), daemon=True)
    done.start()
    done.join(30)
    assert not done.is_alive()


def test_another_source_another_torch_or_other_flags_are_another_library(
    fake_compiler, cache, monkeypatch, tmp_path
):
    found = {library.compiled("DEFAULT")}
    copies = [shutil.copy(source, tmp_path) for source in build.SOURCES]
    with open(copies[1], "a") as file:
        file.write("// changed\n")
    with monkeypatch.context() as patch:
        patch.setattr(build, "SOURCES", tuple(tmp_path / source.name for source in build.SOURCES))
        found.add(library.compiled("DEFAULT"))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.99.0")
        found.add(library.compiled("DEFAULT"))
    found |= {library.compiled(instructions) for instructions in build.instruction_sets()}
    assert len(found) == 2 + len(build.instruction_sets())


def test_what_the_wheel_brings_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "BUILT_AHEAD", tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NoCompiler):
        library.find()
    instructions = INSTRUCTIONS if INSTRUCTIONS in build.instruction_sets() else "DEFAULT"
    ahead = tmp_path / build.file_name(instructions)
    ahead.touch()
    assert library.find() == ahead


def test_without_torchs_headers_there_is_no_library(monkeypatch, tmp_path, cache):
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(NoCompiler, match="headers"):
        build.command(["g++"], "DEFAULT")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"packed": torch.zeros(6, 3)}, "packed must have"),
        ({"packed": torch.zeros(6, 277).double()}, "packed must be float32"),
        ({"state": torch.zeros(16, 7)}, "state must have 128"),
        ({"state": torch.zeros(8, 16).T}, "state must be contiguous"),
        ({"b": torch.zeros(9)}, "b must have 8"),
        ({"segments": [0, 9, 0]}, "segment 0 does not fit"),
        ({"segments": [0, 4, 0, 4, 8, 6]}, "segment 1 does not fit"),
        ({"segments": [0, 8]}, "segments must be"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    if library.obstacle():
        pytest.skip(library.obstacle())
    given = dict.fromkeys("abc", torch.zeros(8))
    given |= {"state": torch.zeros(16, 8), "packed": torch.zeros(6, 277), "segments": [0, 8, 0]}
    given |= change
    with pytest.raises(RuntimeError, match=message):
        operators.network_step(
            [given[name] for name in "abc"], given["state"], given["packed"], given["segments"], 0.0
        )


def test_a_fake_and_a_traced_call_agree_with_a_real_one():
    if library.obstacle():
        pytest.skip(library.obstacle())
    inputs = tuple(torch.randn(8, requires_grad=True) for _ in range(3))
    state, packed = torch.randn(16, 8, requires_grad=True), torch.randn(2, 277)
    registration.opcheck(
        torch.ops.mlhf.coordinate_network.default, (*inputs, state, packed, [0, 5, 0, 5, 8, 1], 0.1)
    )
    registration.opcheck(
        torch.ops.mlhf.coordinate_network_step.default,
        (*(v.detach() for v in inputs), state.detach(), packed, [0, 5, 0, 5, 8, 1], 0.1),
    )


def test_whether_it_is_built_is_told_without_building(cache, fake_compiler, monkeypatch):
    assert not library.is_built()
    assert not fake_compiler.exists()
    target = library.find()
    assert library.is_built()
    assert fake_compiler.read_text() == "call\n"
    target.unlink()
    assert not library.is_built()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not library.is_built()


def test_compiled_into_the_environment_it_is_found_there(cache, fake_compiler, capsys):
    assert main() == 0
    made = capsys.readouterr().out.strip()
    assert made.startswith(str(cache.with_name("environment")))
    assert str(library.find()) == made
    assert main() == 0
    assert fake_compiler.read_text() == "call\n"
    assert not list(cache.glob("*.so"))


def test_where_it_cannot_be_compiled_that_is_said(cache, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main() == 0
    assert "without C++ operators: CXX names no program" in capsys.readouterr().out
