"""What can be trained, on what, by which optimizer."""
