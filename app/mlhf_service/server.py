"""The API's process: uvicorn on the supervisor's socket, or on one of its own."""

import argparse
import signal
import socket

import uvicorn

from mlhf.core.process import die_with_parent
from mlhf_service.main import create_app
from mlhf_service.settings import Settings


def serve(settings: Settings, listener: socket.socket | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="info",
        server_header=False,
        access_log=False,
        timeout_graceful_shutdown=3,  # event streams may stay open for ever
    )
    uvicorn.Server(config).run(sockets=[listener] if listener else None)


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
