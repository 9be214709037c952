"""HTTP for retention rules."""

from typing import Annotated

from fastapi import APIRouter, Path, Response, status
from sqlalchemy import select

from mlhf_service.api.dependencies import CurrentBackend, ReadSession, WriteSession
from mlhf_service.deletions import files
from mlhf_service.kit.pagination import Cursor, Limit, Order, Page, paginate
from mlhf_service.retention import select as selecting
from mlhf_service.retention import service
from mlhf_service.retention.models import RetentionRule
from mlhf_service.retention.schemas import Preview, Result, Rule, RuleCreate, RulePatch, RuleView

router = APIRouter(prefix="/retention", tags=["retention"])

RuleId = Annotated[str, Path(pattern=r"^ret_[0-9a-z]{1,36}$", description="Id of a rule, `ret_…`.")]


@router.post("", status_code=status.HTTP_201_CREATED)
def create_rule(request: RuleCreate, response: Response, backend: CurrentBackend) -> RuleView:
    """Make a rule. It is carried out every ten minutes, on fifty things at a time."""
    with backend.write() as context:
        made = service.create(context, request)
    response.headers["Location"] = f"/v1/retention/{made.id}"
    return made


@router.get("")
def list_rules(session: ReadSession, limit: Limit = 50, cursor: Cursor = None) -> Page[RuleView]:
    """List the rules, the newest first."""
    order = Order(RetentionRule.id, RetentionRule.id, down=True)
    return paginate(session, select(RetentionRule), order, limit, cursor, service.view)


@router.post("/preview")
def preview_rule(request: Rule, session: ReadSession) -> Preview:
    """What a rule would drop now; nothing is changed."""
    return selecting.preview(session, request)


@router.get("/{rule_id}")
def get_rule(rule_id: RuleId, session: ReadSession) -> RuleView:
    """One rule, and what came of it last."""
    return service.view(service.find(session, rule_id))


@router.patch("/{rule_id}")
def change_rule(rule_id: RuleId, request: RulePatch, session: WriteSession) -> RuleView:
    """Change a rule, disable it, or enable it again."""
    return service.change(session, rule_id, request)


@router.delete("/{rule_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_rule(rule_id: RuleId, session: WriteSession) -> None:
    """Delete a rule. What it has dropped stays dropped."""
    session.delete(service.find(session, rule_id))


@router.post("/{rule_id}/run")
def run_rule(rule_id: RuleId, backend: CurrentBackend) -> Result:
    """Carry a rule out now, enabled or not, on fifty things."""
    result = service.run(backend.write, rule_id)
    files.drain_soon(backend.database, backend.storage)
    return result
