"""Data sets: one file a family; only ``loading`` needs torch."""
