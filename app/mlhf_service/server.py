"""The API's process: uvicorn on the supervisor's socket, or on one of its own."""

import argparse
import signal
import socket
import sys

import uvicorn

from mlhf.core.imports import importing
from mlhf.core.process import die_with_parent
from mlhf_service import logs, tracing
from mlhf_service.access_settings import listed
from mlhf_service.api.connections import Impatient, Server, allow_many_files
from mlhf_service.settings import Settings


def serve(settings: Settings, listener: socket.socket | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    logs.configure(
        settings.log_format,
        process="api",
        level=settings.log_level,
        secrets=settings.secrets(),
        more=[tracing.add_ids],
    )
    allow_many_files()
    # Between two statements of the only writer that SQLite allows, other threads may go on: not
    # for the 5 ms that are usual.
    sys.setswitchinterval(0.001)
    tracing.configure("api")
    with importing():
        from mlhf_service.main import create_app

        app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # its lines go through ours
        http=Impatient,
        backlog=1,  # see Server
        server_header=False,
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=listed(settings.trusted_proxies),
        timeout_graceful_shutdown=3,  # event streams may stay open for ever
    )
    Server(config).run(sockets=[listener] if listener else None)


def main() -> None:
    """``python -m mlhf_service.server --fd N``: settings come from the environment."""
    parser = argparse.ArgumentParser(prog="python -m mlhf_service.server")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, default=None, help="Stop when this process ends.")
    options = parser.parse_args()
    if options.parent is not None:
        die_with_parent(signal.SIGTERM, options.parent)
    serve(Settings(), socket.socket(fileno=options.fd))


if __name__ == "__main__":
    main()
