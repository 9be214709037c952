"""The service: jobs over HTTP, a durable queue, curves and artifacts. Imports no torch."""
