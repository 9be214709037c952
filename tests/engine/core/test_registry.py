"""The one registry: what it lists, what it refuses, and that it imports nothing early."""

import pytest

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError
from mlhf.core.registry import Registry, Spec
from mlhf.data.specs import DATASETS
from mlhf.models.specs import MODELS
from mlhf.optimizers.specs import OPTIMIZERS

SPECS = [*DATASETS.values(), *MODELS.values(), *OPTIMIZERS.values()]

THINGS = Registry("thing", [Spec(n, "A thing.", Strict, "json:dumps") for n in ("b", "a")])


def test_it_is_a_mapping_in_the_order_given():
    assert list(THINGS) == ["b", "a"]
    assert len(THINGS) == 2
    assert THINGS.find("a") is THINGS["a"]


def test_an_unknown_name_lists_the_known():
    with pytest.raises(SpecError, match=r"unknown thing 'c'; known: a, b") as caught:
        THINGS.find("c")
    assert caught.value.pointer == "/name"


def test_the_implementation_is_imported_when_it_is_asked_for():
    missing = Spec("c", "A thing.", Strict, "mlhf.no_such_module:build")
    with pytest.raises(ModuleNotFoundError):
        missing.load()
    assert THINGS["a"].load()([1]) == "[1]"


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_every_target_is_there(spec):
    assert spec.load() is not None
