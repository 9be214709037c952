"""What is sent and answered about webhooks."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from mlhf.core.config import Strict
from mlhf_service.runs.status import STATUSES

EVENTS = tuple(f"{kind}.{status}" for kind in ("job", "run") for status in STATUSES)
METRIC_EVENT, TEST_EVENT = "metric.threshold", "webhook.test"
Pattern = Annotated[
    str,
    StringConstraints(pattern=rf"^({'|'.join(('job', 'run'))})\.({'|'.join(STATUSES)}|\*)$"),
    Field(examples=["job.succeeded", "run.*"]),
]
ENDS = ["job.succeeded", "job.failed", "job.cancelled"]
DeliveryStatus = Literal["pending", "delivered", "failed"]
Url = Annotated[str, Field(min_length=1, max_length=2000, examples=["https://example.org/mlhf"])]
Description = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class MetricCondition(Strict):
    """A condition on a metric of a run; each run meets it once."""

    metric: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_]+$")]
    when: Literal["below", "above", "not_finite"]
    value: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _threshold(self) -> Self:
        if (self.value is None) != (self.when == "not_finite"):
            raise ValueError("below and above need a value, not_finite has none")
        return self

    def met_by(self, value: float) -> bool:
        if self.value is None:
            return value - value != 0
        return value < self.value if self.when == "below" else value > self.value


Metrics = Annotated[list[MetricCondition], Field(max_length=20)]


class WebhookCreate(Strict):
    """Where events are to be sent, and which."""

    url: Url
    description: Description = ""
    events: list[Pattern] = Field(
        default_factory=lambda: list(ENDS),
        max_length=40,
        description="`job.<status>`, `run.<status>`, or `job.*`, `run.*`.",
    )
    metrics: Metrics = Field(
        default_factory=list, description=f"Sent as `{METRIC_EVENT}`, once for each run."
    )


class WebhookPatch(Strict):
    """What to change; the rest stays. To enable it again sends what has waited, too."""

    url: Url | None = None
    description: Description | None = None
    events: list[Pattern] | None = Field(None, max_length=40)
    metrics: Metrics | None = None
    enabled: bool | None = None


class WebhookView(BaseModel):
    """A webhook, without its secret."""

    id: str
    url: str
    description: str
    events: list[str]
    metrics: list[MetricCondition]
    enabled: bool
    disabled_reason: str | None = Field(description="Why it is not sent to any more.")
    created_at: datetime


class WebhookWithSecret(WebhookView):
    """A webhook with the secret that signs; it is not shown again."""

    secret: str = Field(description="`whsec_…`, for any library of Standard Webhooks.")


class DeliveryView(BaseModel):
    """One event on its way to a webhook."""

    id: str = Field(description="The same in every attempt: the header `webhook-id`.")
    type: str
    status: DeliveryStatus
    attempts: int
    response_status: int | None = Field(description="HTTP status of the last answer.")
    error: str | None = Field(description="What was wrong with the last attempt.")
    next_attempt_in: float | None = Field(description="Seconds, while it is pending.")
    created_at: datetime
    delivered_at: datetime | None
    body: str
