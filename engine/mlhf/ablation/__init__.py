"""Ablations: what each part of the published optimizer is worth, measured step by step."""
