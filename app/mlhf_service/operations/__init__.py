"""The service at work: its workers, and what waits for them."""
