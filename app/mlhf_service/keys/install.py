"""Put the gate, and the sessions it reads, before the routes of an application."""

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import Scope

from mlhf_service.keys.authenticate import Authenticator
from mlhf_service.keys.gate import ErrorPage, Gate
from mlhf_service.keys.journal import Journal
from mlhf_service.keys.rates import Rates
from mlhf_service.keys.sessions import Sessions, secret_of
from mlhf_service.settings import Settings


def install(app: FastAPI, settings: Settings, error_page: ErrorPage) -> None:
    """Ask for keys where the settings say so; refuse what has no decision in any case."""
    authenticator = Authenticator(app.state.database) if settings.auth == "keys" else None
    app.state.authenticator = authenticator
    app.state.oidc = None
    if settings.oidc_issuer:
        from mlhf_service.keys.oidc import Provider  # slow to import, and seldom set

        app.state.oidc = Provider(settings)

    def serves(scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in app.router.routes)

    app.add_middleware(
        Gate,
        settings=settings,
        authenticator=authenticator,
        rates=Rates(settings, app.state.database) if authenticator is not None else None,
        journal=Journal(app.state.database) if authenticator else None,
        serves=serves,
        error_page=error_page,
    )
    if authenticator is not None:
        app.add_middleware(Sessions, secret=secret_of(settings), hours=settings.session_hours)
