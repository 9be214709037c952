"""Runs from what other tools wrote: CSV, exports of Weights & Biases, TensorBoard's event files."""
