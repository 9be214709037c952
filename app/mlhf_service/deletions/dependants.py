"""What depends on a thing that is to be deleted, and the refusal that names it."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from mlhf_service.kit.problems import Conflict, ProblemDocument

SHOWN = 20


class Dependant(BaseModel):
    """One thing that depends on another."""

    kind: str = Field(description="run, job, meta_checkpoint or alias.")
    id: str
    relation: str = Field(description="How it depends, such as `trained on it`.")


class Dependants(BaseModel):
    """Those of one relation: how many, and the first of them."""

    shown: list[Dependant]
    total: int

    @classmethod
    def of(cls, kind: str, relation: str, ids: Sequence[str], total: int) -> "Dependants":
        shown = [Dependant(kind=kind, id=one, relation=relation) for one in ids[:SHOWN]]
        return cls(shown=shown, total=total)

    def __str__(self) -> str:
        first = self.shown[0]
        named = ", ".join(one.id for one in self.shown[:3])
        more = f" and {self.total - 3} more" if self.total > 3 else ""
        kind = first.kind.replace("_", "-")
        plural = kind if self.total == 1 else "aliases" if kind == "alias" else f"{kind}s"
        relation = first.relation
        if self.total == 1:
            for many, one in (("have ", "has "), ("are ", "is "), ("name ", "names ")):
                relation = relation.replace(many, one)
        return f"{self.total} {plural} {relation} ({named}{more})"


class InUseDocument(ProblemDocument):
    """The refusal to delete what others depend on."""

    dependants: list[Dependant] = Field(description=f"The first {SHOWN} of each kind.")
    dependants_total: int


class InUse(Conflict):
    """Others depend on it; the detail says how to go on."""

    slug, title = "in-use", "Others depend on it"

    def __init__(self, found: Sequence[Dependants], how: str) -> None:
        super().__init__(f"{'; '.join(map(str, found))}. {how}")
        self.found = found

    def document(self) -> dict[str, Any]:
        shown = [one.model_dump() for each in self.found for one in each.shown]
        total = sum(each.total for each in self.found)
        return {**super().document(), "dependants": shown, "dependants_total": total}
