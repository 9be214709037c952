"""The durable queue: the database holds the work, Celery rings the bell."""
