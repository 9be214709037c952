"""The Celery application. It carries doorbells only; the work is in the database."""

from typing import Any

from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES

from mlhf_service.errors import StartError
from mlhf_service.queue.names import QUEUES, broker_queue
from mlhf_service.settings import Settings, hide_password

celery_app = Celery("mlhf", set_as_current=False)

_FOLDER = "mlhf-folder"
TRANSPORT_ALIASES[_FOLDER] = "mlhf_service.queue.folder_broker:Transport"
_RABBITMQ = ("amqp", "amqps", "pyamqp")


def configure(settings: Settings) -> Celery:
    """Point the application at the settings' broker. Opens no connection."""
    scheme = settings.broker.partition("://")[0]
    celery_app.conf.update(
        broker_url=settings.broker,
        broker_transport_options=_transport_options(settings, scheme),
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=2.0,
        result_backend=None,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=False,  # a doorbell may be lost: the sweeper rings again
        task_create_missing_queues=False,
        task_queues=[_queue(name, scheme) for name in QUEUES],
        task_default_queue=broker_queue("cpu"),
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_soft_shutdown_timeout=settings.grace_seconds,
        include=["mlhf_service.queue.worker"],
    )
    if scheme == "filesystem":
        settings.broker_dir.mkdir(parents=True, exist_ok=True)
        celery_app.conf.broker_url = f"{_FOLDER}://"
    return celery_app


def require_broker(settings: Settings) -> None:
    """Connect to the settings' broker once. Raises StartError where it does not answer."""
    try:
        with configure(settings).connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
    except OperationalError as error:
        where, reason = hide_password(settings.broker), str(error).rstrip(".")
        raise StartError(f"{where} does not answer: {reason}") from None


def _transport_options(settings: Settings, scheme: str) -> dict[str, Any]:
    if scheme == "filesystem":
        folder = str(settings.broker_dir)
        return {
            "data_folder_in": folder,
            "data_folder_out": folder,
            "control_folder": f"{folder}/control",
            "polling_interval": 0.1,
        }
    if scheme in _RABBITMQ:
        return {"confirm_publish": True}
    # Redis. A doorbell is acknowledged on receipt, so this never delivers one again.
    return {"visibility_timeout": 3600, "socket_connect_timeout": 2.0, "socket_timeout": 5.0}


def _queue(name: str, scheme: str) -> Queue:
    quorum = {"x-queue-type": "quorum"} if scheme in _RABBITMQ else None
    return Queue(  # type: ignore[no-untyped-call]
        broker_queue(name), routing_key=broker_queue(name), queue_arguments=quorum
    )
