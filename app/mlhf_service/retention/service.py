"""Make, change and carry out retention rules."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from mlhf_service.context import Caller, Context
from mlhf_service.database import Database, db_now, now
from mlhf_service.deletions import service as deletions
from mlhf_service.deletions.bulk import attempt
from mlhf_service.deletions.schemas import Kept
from mlhf_service.jobs import service as jobs
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.problems import NotFound
from mlhf_service.retention import select as selecting
from mlhf_service.retention.models import RetentionRule
from mlhf_service.retention.schemas import Result, Rule, RuleCreate, RulePatch, RuleView
from mlhf_service.settings import Settings
from mlhf_service.storage.protocol import Storage

INTERVAL_SECONDS = 600.0
AT_ONCE = 50  # things a rule drops in one go: retention is to be felt by nobody
_LOOKED_AT = 1000
_SHOWN = 20
_GONE = "/problems/not-found"

Write = Callable[[], AbstractContextManager[Context]]


def create(context: Context, request: RuleCreate) -> RuleView:
    row = RetentionRule(
        id=new_id("ret"),
        tenant=context.caller.tenant,
        key_id=context.caller.key_id,
        name=request.name,
        rule=request.rule.model_dump(mode="json"),
        enabled=request.enabled,
        next_run_at=0.0,
        created_at=now(),
    )
    context.session.add(row)
    context.session.flush()
    return view(row)


def find(session: Session, rule_id: str) -> RetentionRule:
    row = session.scalar(select(RetentionRule).where(RetentionRule.id == rule_id))
    if row is None:
        raise NotFound("There is no retention rule of this id.")
    return row


def change(session: Session, rule_id: str, request: RulePatch) -> RuleView:
    row = find(session, rule_id)
    if request.name is not None:
        row.name = request.name
    if request.rule is not None:
        row.rule = request.rule.model_dump(mode="json")
    if request.enabled is not None:
        row.enabled = request.enabled
    row.next_run_at = 0.0
    return view(row)


def view(row: RetentionRule) -> RuleView:
    return RuleView.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "rule": row.rule,
            "enabled": row.enabled,
            "last_run_at": row.last_run_at,
            "last_result": row.last_result,
            "created_at": row.created_at,
        }
    )


def run_due(settings: Settings, database: Database, storage: Storage) -> int:
    """Carry out the rules that are due, each for its tenant. Returns how much was dropped."""
    with database.read() as session:
        due = RetentionRule.enabled, RetentionRule.next_run_at <= db_now()
        found = session.execute(select(RetentionRule.id, RetentionRule.tenant).where(*due)).all()
    count = 0
    for rule_id, tenant in found:
        if not _take(database, rule_id):
            continue  # another process was faster
        of_tenant = database.of_tenant(tenant)
        count += run(_writer(settings, of_tenant, storage, tenant), rule_id).dropped
    return count


def _take(database: Database, rule_id: str) -> bool:
    with database.write() as session:
        taken = session.execute(
            update(RetentionRule)
            .where(RetentionRule.id == rule_id, RetentionRule.next_run_at <= db_now())
            .values(next_run_at=db_now() + INTERVAL_SECONDS)
            .execution_options(synchronize_session=False)
        )
    return bool(taken.rowcount)  # type: ignore[attr-defined]


def _writer(settings: Settings, database: Database, storage: Storage, tenant: str) -> Write:
    @contextmanager
    def write() -> Iterator[Context]:
        with database.write() as session:
            yield Context(session, settings, storage, Caller(tenant))

    return write


def run(write: Write, rule_id: str, limit: int = AT_ONCE) -> Result:
    """Carry a rule out on at most ``limit`` things, each in a transaction of its own.

    Args:
        write: Opens a transaction of the rule's tenant.
    """
    with write() as context:
        rule = Rule.model_validate(find(context.session, rule_id).rule)
        keys = selecting.dropped(context.session, rule, _LOOKED_AT)
    result = Result(dropped=0, kept=[])
    for key in keys:
        if result.dropped >= limit:
            break
        kept = _drop(write, rule, key)
        if kept is None:
            result.dropped += 1
        elif kept.type != _GONE and len(result.kept) < _SHOWN:
            result.kept.append(kept)
    with write() as context:
        row = find(context.session, rule_id)
        row.last_run_at, row.last_result = now(), result.model_dump(mode="json")
    return result


def _drop(write: Write, rule: Rule, key: tuple[str, ...]) -> Kept | None:
    def act(context: Context) -> None:
        if rule.target == "checkpoints":
            deletions.delete_artifact(context, key[0], key[1], deletions.Options())
        elif rule.action == "archive":
            jobs.archive(context.session, key[0])
        else:
            deletions.delete_job(context, key[0], deletions.Options())

    return attempt(write, key[0], act)
