"""What a trainer may not do, each tried in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

from mlhf.core.confinement import BASE_BYTES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux confines")

MIB = 2**20

# Confines itself as it is told, then tries to get out. Prints what came of it.
ATTEMPT = """
import json, socket, sys
from pathlib import Path
from mlhf.core.confinement import ConfinementError, confine
wanted, port = json.loads(sys.argv[1]), int(sys.argv[2])
try:
    report = confine(wanted, [Path.cwd()])
except ConfinementError as error:
    print(json.dumps({"refused": str(error)}))
    sys.exit()
def connects(address):
    try:
        socket.create_connection(address, timeout=10).close()
        return True
    except OSError:
        return False
def loopback():
    with socket.socket() as server:
        try:
            server.bind(("127.0.0.1", 0))
            server.listen()
        except OSError:
            return False
        return connects(server.getsockname())
def takes(size):
    try:
        return len(bytearray(size)) == size
    except MemoryError:
        return False
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "report": report.to_dict(),
    "outside": connects(("127.0.0.1", port)),
    "inside": loopback(),
    "takes_100": takes(100 * 2**20),
    "takes_600": takes(600 * 2**20),
    "capabilities": int(status["CapEff"], 16),
    "new_privileges": status["NoNewPrivs"].strip(),
    "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text()),
}))
"""


@pytest.fixture
def port():
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def attempt(port, *, prefix=(), **wanted):
    done = subprocess.run(
        [*prefix, sys.executable, "-c", ATTEMPT, json.dumps(wanted), str(port)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_confined_process_reaches_nobody_and_may_nothing(port):
    found = attempt(port, mode="auto")
    if found["report"]["network"] == "open":
        pytest.skip(f"this system does not let it: {found['report']['refused']}")
    assert not found["outside"]
    assert found["capabilities"] == 0
    assert found["report"]["capabilities"] == []
    assert found["new_privileges"] == "1"
    assert found["oom_score_adj"] >= 500
    # gloo and the like still talk to themselves
    assert found["inside"] == (found["report"]["network"] == "none")


def test_off_leaves_the_network_and_keeps_the_memory_limit(port):
    found = attempt(port, mode="off", memory_bytes=BASE_BYTES + 300 * MIB)
    assert found["outside"]
    assert (found["report"]["network"], found["report"]["memory_limit_by"]) == ("open", "rlimit")
    assert (found["takes_100"], found["takes_600"]) == (True, False)


def test_memory_beyond_the_limit_is_refused(port):
    found = attempt(port, mode="auto", memory_bytes=BASE_BYTES + 300 * MIB)
    assert (found["takes_100"], found["takes_600"]) == (True, False)
    assert found["report"]["memory_limit_bytes"] == BASE_BYTES + 300 * MIB
    unlimited = attempt(port, mode="auto", memory_bytes=None)
    assert unlimited["takes_600"]


def test_what_reads_tables_leaves_the_memory_within_the_limit_to_the_run():
    pytest.importorskip("pyarrow")
    script = (
        "import sys; from mlhf.core.confinement import BASE_BYTES, confine\n"
        "confine({'mode': 'off', 'memory_bytes': BASE_BYTES + 1500 * 2**20})\n"
        "import pyarrow; held = pyarrow.array([1, 2, 3])\n"
        "print(len(bytearray(1000 * 2**20)))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ARROW_DEFAULT_MEMORY_POOL"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_a_group_is_entered_instead_of_an_rlimit(port, tmp_path):
    (tmp_path / "cgroup.procs").touch()
    found = attempt(port, mode="off", memory_bytes=MIB, cgroup=str(tmp_path))
    assert (tmp_path / "cgroup.procs").read_text() == "0"
    assert found["report"]["memory_limit_by"] == "cgroup"
    assert found["takes_600"]  # the kernel counts, where it is a real one


def test_required_where_the_system_refuses_ends_the_process(port):
    """Under a filter of system calls, as containers have."""
    deny = (
        "import ctypes, struct, os, sys;"
        "libc = ctypes.CDLL(None);"
        "code = [(0x20, 0, 0, 0)] + [i for n in (UNSHARE, 444) for i in"
        " ((0x15, 0, 1, n), (0x06, 0, 0, 0x50001))] + [(0x06, 0, 0, 0x7FFF0000)];"
        "raw = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *i) for i in code));"
        "program = struct.pack('HxxxxxxQ', len(code), ctypes.addressof(raw));"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0;"
        "assert libc.prctl(22, 2, program, 0, 0) == 0;"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    number = {"x86_64": 272, "aarch64": 97}.get(os.uname().machine)  # of unshare
    if number is None:
        pytest.skip("the filter is for other processors")
    prefix = (sys.executable, "-c", deny.replace("UNSHARE", str(number)))
    found = attempt(port, prefix=prefix, mode="required")
    assert "network namespace" in found["refused"]
    tolerant = attempt(port, prefix=prefix, mode="auto")
    assert tolerant["outside"]
    assert tolerant["report"]["network"] == "open"
    assert any("namespace" in reason for reason in tolerant["report"]["refused"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs no permission")
def test_root_keeps_what_it_needs_to_reach_its_files(port, tmp_path):
    folder = tmp_path / "of another user"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    code = ATTEMPT.replace("[Path.cwd()]", f"[Path({str(folder)!r})]")
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps({"mode": "auto"}), str(port)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["report"]["capabilities"] == [1]


def test_what_is_confined_needs_no_torch():
    code = "import sys, mlhf.core.confinement; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
