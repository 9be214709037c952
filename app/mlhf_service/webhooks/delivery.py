"""Deliver what is written down: at least once, again after failures, and not for ever."""

import logging
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select

from mlhf_service.database import Database, db_now, now
from mlhf_service.settings import Settings
from mlhf_service.webhooks import repository, sender, signing
from mlhf_service.webhooks.models import DELIVERED, FAILED, Webhook, WebhookDelivery

log = logging.getLogger(__name__)

_MINUTE, _HOUR = 60.0, 3600.0
# From one attempt to the next: ten attempts within some three days.
RETRY_SECONDS = (
    5.0,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
_TAKEN_SECONDS = 60.0  # longer than an attempt can take: then its sender has died
_SENDERS = 8  # at once, to as many webhooks: a slow one waits for itself alone
_GONE = 410


class Deliverer:
    """Sends deliveries from threads. Any number of processes may: each takes its own.

    Args:
        retry_seconds: From each attempt to the next; after the last the webhook is disabled.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
    ) -> None:
        self._settings = settings
        self._database = database
        self._retry_seconds = retry_seconds
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._pool = ThreadPoolExecutor(_SENDERS, thread_name_prefix="webhook")
        self._thread = threading.Thread(target=self._loop, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin no more; what is being sent ends within its time limit, or is sent again."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _loop(self) -> None:
        while not self._stopping:
            try:
                self.begin_due()
            except Exception as error:
                log.warning("webhooks wait: %s: %s", type(error).__name__, error)
            self._wake.wait(self._settings.poll_seconds)
            self._wake.clear()

    def begin_due(self) -> int:
        """Begin to send what is due, as far as senders are free. Returns how many."""
        with self._lock:
            busy = set(self._busy)
        free = _SENDERS - len(busy)
        if free <= 0:
            return 0
        with self._database.read() as session:
            found = repository.due(session, free, busy)
        begun = 0
        for delivery_id in found:
            with self._database.write() as session:
                taken = repository.take(session, delivery_id, _TAKEN_SECONDS)
            if taken is not None:
                begun += 1
                with self._lock:
                    self._busy.add(taken[0].id)
                self._pool.submit(self._guarded, *taken)
        return begun

    def _guarded(self, webhook: Webhook, delivery: WebhookDelivery) -> None:
        try:
            self._deliver(webhook, delivery)
        except Exception:
            log.exception("delivery %s", delivery.id)
        finally:
            with self._lock:
                self._busy.discard(webhook.id)
            self._wake.set()

    def _deliver(self, webhook: Webhook, delivery: WebhookDelivery) -> None:
        """One attempt, and what came of it. The rows are of a session that has ended."""
        with self._database.read() as session:
            present = session.scalar(select(db_now())) or 0.0
        keys = [webhook.secret]
        if webhook.previous_secret and (webhook.previous_until or 0.0) > present:
            keys.append(webhook.previous_secret)
        headers = signing.headers(delivery.id, delivery.body, keys, now())
        answer, error = None, None
        try:
            answer = sender.post(
                webhook.url, delivery.body, headers, self._settings.webhook_private
            )
        except sender.DeliveryError as failed:
            error = str(failed)
        self._record(delivery, answer, error or _wrong(answer))

    def _record(self, delivery: WebhookDelivery, answer: int | None, error: str | None) -> None:
        with self._database.write() as session:
            row = session.get(WebhookDelivery, delivery.id, with_for_update=True)
            if row is None or row.attempts != delivery.attempts:
                return  # deleted, or taken by another sender after our time was over
            row.response_status, row.error = answer, error and error[:500]
            if error is None:
                row.status, row.delivered_at = DELIVERED, now()
                return
            last = row.attempts > len(self._retry_seconds)
            if not last and answer != _GONE:
                seconds = self._retry_seconds[row.attempts - 1]
                present = session.scalar(select(db_now())) or 0.0
                row.next_attempt_at = present + seconds * random.uniform(0.9, 1.1)
                return
            row.status = FAILED
            webhook = session.get_one(Webhook, row.webhook_id, with_for_update=True)
            if webhook.disabled_at is None:
                why = (
                    "it answered 410 Gone"
                    if answer == _GONE
                    else (f"a delivery failed {row.attempts} times, at last because {error}")
                )
                webhook.disabled_at, webhook.disabled_reason = now(), why[:500]
                log.warning("webhook %s is disabled: %s", webhook.id, why)


def _wrong(answer: int | None) -> str | None:
    if answer is not None and 200 <= answer < 300:
        return None
    if answer is not None and 300 <= answer < 400:
        return f"it answered {answer}: redirects are not followed"
    return f"it answered {answer}"
