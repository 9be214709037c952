"""Kill, stop and starve every process of the service, and count what was lost or doubled.

``python -m bench.faults --help`` says how; ``make faults`` runs all of it.
"""
