"""The queues of the broker, and the one message that is sent through them."""

QUEUES = ("cpu", "gpu")
DOORBELL = "mlhf.doorbell"


def broker_queue(queue: str) -> str:
    """What a queue is called at the broker."""
    return f"mlhf.{queue}"
