"""Ablations: what each part of the published form is worth, measured step by step."""
