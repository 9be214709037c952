"""``MLHF`` as a class: it makes an instance of the variant's class."""

import copy
import inspect
import pickle
from typing import get_type_hints

import pytest
import torch
from torch import nn

import mlhf
from mlhf.curvature.errors import CurvatureError
from mlhf.optimizers.mlhf.kronecker.optimizer import KroneckerMLHF
from mlhf.optimizers.mlhf.paper.optimizer import PaperMLHF
from mlhf.optimizers.mlhf.variants import KroneckerOptions, PaperOptions

VARIANTS = {"kronecker": KroneckerMLHF, "paper": PaperMLHF}
POSITIONAL = ["model", "loss", "meta_checkpoint"]


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def _batches(count):
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(8, 4, generator=generator),
            torch.randint(0, 3, (8,), generator=generator),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_lazy_layers_have_to_be_run_before(variant):
    model = nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.LazyLinear(3))
    with pytest.raises(CurvatureError, match="run it once on a batch"):
        mlhf.MLHF(model, variant=variant)
    (x, y), *_ = _batches(1)
    model(x)
    assert torch.isfinite(mlhf.MLHF(model, variant=variant).step(x, y).loss)


def test_the_name_is_a_class_and_the_default_variant_kronecker():
    assert isinstance(mlhf.MLHF, type)
    assert type(mlhf.MLHF(_model())) is KroneckerMLHF


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_instance_is_of_the_variants_class(variant):
    optimizer = mlhf.MLHF(_model(), "cross_entropy", None, variant)
    assert type(optimizer) is VARIANTS[variant]
    assert isinstance(optimizer, mlhf.MLHF)
    assert isinstance(VARIANTS[variant](_model(), meta_checkpoint=None), mlhf.MLHF)


def test_arguments_reach_the_variant():
    optimizer = mlhf.MLHF(_model(), "mse", None, "paper", lr=0.5, weight_decay=0.1, seed=7)
    assert (optimizer.loss_function, optimizer.lr, optimizer.weight_decay) == ("mse", 0.5, 0.1)
    first, second, again = (
        mlhf.MLHF(_model(), meta_checkpoint=None, seed=seed)._basis._generator.initial_seed()
        for seed in (3, 4, 3)
    )
    assert (first, second, again) == (3, 4, 3)


def test_an_unknown_variant_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match="unknown variant 'papers'; known: kronecker, paper"):
        mlhf.MLHF(_model(), variant="papers")


@pytest.mark.parametrize(("variant", "option"), [("paper", "average"), ("kronecker", "tolerance")])
def test_an_option_of_the_other_variant_is_refused(variant, option):
    with pytest.raises(TypeError, match=option):
        mlhf.MLHF(_model(), variant=variant, **{option: 0.1})


def test_a_variants_own_class_takes_no_variant():
    for cls in VARIANTS.values():
        with pytest.raises(TypeError, match="variant"):
            cls(_model(), variant="paper")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_takes_the_same_steps(variant, duplicate):
    optimizer = mlhf.MLHF(_model(), variant=variant)
    *before, last = _batches(4)
    for batch in before:
        optimizer.step(*batch)
    other = duplicate(optimizer)
    assert type(other) is type(optimizer)
    for each in (optimizer, other):
        each.step(*last)
    for mine, theirs in zip(optimizer.model.parameters(), other.model.parameters(), strict=True):
        assert mine is not theirs
        assert torch.equal(mine, theirs)


def test_signatures_are_those_that_a_caller_sees():
    parameters = inspect.signature(mlhf.MLHF).parameters
    assert list(parameters) == [*POSITIONAL, "variant", "seed", "options"]
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    assert defaults == {
        "loss": "cross_entropy",
        "meta_checkpoint": "default",
        "variant": "kronecker",
        "seed": 0,
    }
    assert "solve_every" in inspect.signature(KroneckerMLHF).parameters


@pytest.mark.parametrize(
    ("cls", "options"), [(KroneckerMLHF, KroneckerOptions), (PaperMLHF, PaperOptions)]
)
def test_the_options_that_type_checkers_know_are_those_of_the_class(cls, options):
    """With their types; the paper's variant draws nothing and takes no seed itself."""
    hints = get_type_hints(cls.__init__)
    names = [name for name in inspect.signature(cls).parameters if name not in POSITIONAL]
    stated = {name: str(hint) for name, hint in options.__annotations__.items()}
    assert set(names) | {"seed"} == set(stated)
    for name in names:
        assert stated[name] in (str(hints[name]), f"ForwardRef('{name}')") or name == "kernel"
