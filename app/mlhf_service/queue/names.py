"""The queues of the broker, and the one message that is sent through them."""

QUEUES = ("cpu", "gpu")
DOORBELL = "mlhf.doorbell"
# The environment variable that names a worker's place: one worker at a time has it, each
# started when the one before has ended.
WORKER_SLOT = "MLHF_WORKER_SLOT"


def broker_queue(queue: str) -> str:
    """What a queue is called at the broker."""
    return f"mlhf.{queue}"
