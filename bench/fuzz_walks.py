"""Walks along the links of the OpenAPI document: what one answer names, the next request takes."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import schemathesis
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import checks

HEADERS = {"Host": "127.0.0.1"}
HANGS_SECONDS = 60.0
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.use_after_free,
]
_STEPS = 12


@dataclass
class Walked:
    """What was answered on the way, and what should not have been."""

    walks: int = 0
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)

    def line(self) -> str:
        classes = Counter(f"{status // 100}xx" for (_, status) in self.answers.elements())
        steps = f"{self.walks} walks of {self.answers.total():,} steps"
        text = f"{steps}: {dict(sorted(classes.items()))}"
        return "\n".join([text, *(f"BREACH {one}" for one in self.breaches)])


def walk(app: Any, walks: int, seed: int, job: dict[str, Any] | None = None) -> Walked:
    """Make so many walks of up to twelve steps; ``job`` is what new jobs mostly are."""
    walked = Walked()
    every = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)
    schema: Any = every.exclude(path_regex="/events$")  # of a job that waits they do not end
    body = job or _JOB

    class Walk(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": HEADERS, "timeout": HANGS_SECONDS}

        def setup(self) -> None:
            walked.walks += 1

        def before_call(self, case: Any) -> None:
            if case.operation.label == "POST /v1/jobs":
                case.body, case.query = dict(body), {}
                case.media_type = "application/json"

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            walked.answers[case.operation.label, response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

    batch = 0
    while walked.walks < walks and not walked.breaches:
        batch += 1
        try:
            run_state_machine_as_test(
                hypothesis.seed(seed + 1000 * batch)(Walk),
                settings=hypothesis.settings(
                    max_examples=walks - walked.walks,
                    stateful_step_count=_STEPS,
                    deadline=None,
                    database=None,
                    phases=[hypothesis.Phase.generate],
                    suppress_health_check=list(hypothesis.HealthCheck),
                ),
            )
        except hypothesis.errors.Flaky:
            continue  # each walk meets what those before it left: the next batch goes on
        except BaseExceptionGroup as group:
            walked.breaches += [f"{type(one).__name__}: {one}" for one in group.exceptions]
        except AssertionError as error:
            walked.breaches.append(str(error))
    return walked


_JOB: dict[str, Any] = {
    "kind": "train",
    "model": {"name": "mlp", "params": {"hidden": [8]}},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "adam"},
    "budget": {"steps": 3},
}
