"""Where artifacts are stored."""
