"""Sixty networks of timm and transformers, at random weights, trained by ``MLHF`` as it comes.

None of them was written for this library. Each is small, trains 40 steps on a task that can be
learned, and is compared with the best of three rates of AdamW. ``python -m bench.foreign`` runs
them and writes ``docs/results/foreign/``. Needs ``pip install '.[bench]'``.

``packages.py`` imports the two libraries, ``tasks.py`` makes the batches, ``networks/`` lists
the networks, ``trial.py`` trains one, ``report.py`` writes the page.
"""
