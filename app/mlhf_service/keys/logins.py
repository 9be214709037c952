"""Log-ins by OpenID Connect as rows, so that each can be ended before its time.

The cookie says who logged in, and is signed; the row says whether that still counts.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Index, Select, String, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from mlhf_service.context import SCOPES, Caller
from mlhf_service.database import Base, UTCDateTime, now
from mlhf_service.keys.schemas import LoginView
from mlhf_service.keys.service import Checked
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.problems import NotFound
from mlhf_service.tenancy import OfTenant

LOGIN = "login"  # under this name the cookie holds the row's id
_MOST_SHOWN = 200


class Login(OfTenant, Base):
    """One log-in of a person in one browser.

    Attributes:
        key_id: Of the person; what is made in this session names it.
        agent: What the browser calls itself.
    """

    __tablename__ = "logins"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(200))
    address: Mapped[str | None] = mapped_column(String(64))
    agent: Mapped[str | None] = mapped_column(String(_MOST_SHOWN))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (Index(None, "tenant", "id"),)


def begin(
    session: Session,
    told: Mapping[str, Any],
    hours: float,
    address: str | None,
    agent: str | None,
) -> str:
    """Note a log-in; returns its id, for the cookie."""
    row = Login(
        id=new_id("login"),
        tenant=told["tenant"],
        key_id=told["id"],
        name=told["name"],
        address=address,
        agent=agent and agent[:_MOST_SHOWN],
        created_at=now(),
        expires_at=now() + timedelta(hours=hours),
    )
    session.add(row)
    return row.id


def check(session: Session, told: Mapping[str, Any]) -> Checked | None:
    """Who sends a cookie that holds this, if the log-in still counts."""
    row = session.get(Login, str(told.get(LOGIN, "")))
    if row is None or row.ended_at is not None or row.expires_at <= now():
        return None
    if row.key_id != told["id"]:
        return None
    caller = Caller(
        tenant=str(told["tenant"]),
        key_id=str(told["id"]),
        name=str(told["name"]),
        scopes=frozenset(told["scopes"]) & frozenset(SCOPES),
    )
    return Checked(row.id, caller, due=False)


def search(key_id: str | None = None) -> Select[Login]:
    """Those that still count."""
    statement = select(Login).where(Login.ended_at.is_(None), Login.expires_at > now())
    return statement if key_id is None else statement.where(Login.key_id == key_id)


def end(session: Session, login_id: str) -> LoginView:
    """End one. Raises NotFound."""
    row = session.scalar(select(Login).where(Login.id == login_id))
    if row is None:
        raise NotFound("There is no log-in of this id.")
    row.ended_at = row.ended_at or now()
    return view(row)


def forget_old(session: Session, before: datetime) -> None:
    """Delete those that were over before a time."""
    session.execute(delete(Login).where(Login.expires_at < before))


def view(row: Login) -> LoginView:
    return LoginView.model_validate({name: getattr(row, name) for name in LoginView.model_fields})
