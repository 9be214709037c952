"""A bounded part of the fuzz of graphs: refused, sized or run, and nothing else."""

import random

from bench.foreign.fuzz import Outcomes, add_graphs


def test_mutated_graphs_are_refused_or_run():
    found = Outcomes()
    add_graphs(found, 60, random.Random(1))
    assert found.wrong == []
    assert found.counts["refused"] > 5
    assert found.counts["run"] > 0
    assert sum(found.counts.values()) == 60
