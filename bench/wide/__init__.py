"""A benchmark that cannot be learned by heart: ``python -m bench.wide``.

Families of tasks beside the eight of ``bench.judge``. Each has a version for development and one
of other data, sizes and seeds that is only ever judged; ``looked.jsonl`` says when one was run.

``families/`` makes the tasks, one family a file; ``contenders.py`` lists the optimizers and their
settings; ``runner.py`` trains through the engine; ``table.py`` keeps one line a run;
``results.py`` and ``profiles.py`` make numbers of them, ``report.py`` the page.
"""
