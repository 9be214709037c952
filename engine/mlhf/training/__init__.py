"""The training loop, its checkpoints and events, and the process it runs in."""
