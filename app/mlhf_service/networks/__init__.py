"""Networks that users uploaded: a graph of operations, and its weights."""
