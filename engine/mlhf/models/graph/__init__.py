"""Networks as data: a directed graph of a closed table of operations, traced from modules."""
