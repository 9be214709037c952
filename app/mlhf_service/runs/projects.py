"""The table of projects. A project groups jobs; those without one are in ``default``."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Index, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from mlhf_service.database import Base, UTCDateTime
from mlhf_service.tenancy import TenantOwned

DEFAULT = "default"


class Project(TenantOwned, Base):
    """A name for jobs that belong together."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    archived_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # takes no new jobs

    __table_args__ = (Index(None, "tenant", "name", unique=True),)


def names(session: Session, project_ids: Iterable[str | None]) -> dict[str, str]:
    """The names of some projects by id; what is in none (None) has no name here."""
    wanted = {each for each in project_ids if each is not None}
    if not wanted:
        return {}
    rows = session.execute(select(Project.id, Project.name).where(Project.id.in_(wanted)))
    return {row.id: row.name for row in rows}
