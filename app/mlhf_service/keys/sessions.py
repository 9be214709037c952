"""The cookie of who has logged in: signed, not readable by scripts, not sent by other sites."""

import os
import secrets

from starlette.middleware.sessions import SessionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from mlhf_service.data_folder import make_folder
from mlhf_service.settings import Settings

_FILE = "session.key"


class Sessions:
    """Starlette's sessions. By https the cookie is Secure and bound to the host by its name."""

    def __init__(self, app: ASGIApp, secret: str, hours: float) -> None:
        seconds = int(hours * 3600)
        self._plain = SessionMiddleware(app, secret, "mlhf_session", seconds)
        self._secure = SessionMiddleware(
            app, secret, "__Host-mlhf_session", seconds, https_only=True
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        chosen = self._secure if scope.get("scheme") == "https" else self._plain
        await chosen(scope, receive, send)


def secret_of(settings: Settings) -> str:
    """What cookies are signed with: the setting, else a file that all processes here read."""
    if given := settings.session_secret.get_secret_value():
        return given
    path = settings.root / _FILE
    make_folder(settings.root)
    own = path.with_name(f"{_FILE}.{os.getpid()}")
    try:
        descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        os.link(own, path)  # whole or not at all, and the first one wins
    except FileExistsError:
        pass
    finally:
        own.unlink(missing_ok=True)
    return path.read_text()
