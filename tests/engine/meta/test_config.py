"""What a meta-training run is where nothing else is said."""

import pytest
from pydantic import ValidationError

from mlhf.meta.config import BPTT, MetaSettings, MetaTrainConfig

FAMILY = {"model": {"name": "mlp"}, "dataset": {"name": "digits"}}


def test_the_papers_numbers_are_its_variants_defaults():
    config = MetaTrainConfig.model_validate({"tasks": [FAMILY], "variant": "paper"})
    assert config.unroll == 10
    assert config.tasks[0].batch_sizes == [64]
    assert config.tasks[0].initial_scales == [1.0]
    assert config.pcg_iterations == 4
    assert config.lr == 1e-3
    assert config.decay_at == [0.6, 0.76, 0.88]
    assert config.weight_decay == 2e-7
    assert config.clip == 1.0
    assert config.step_clip == 0.25
    assert config.noise == 0.02
    assert (config.replay.keep, config.replay.capacity) == (0.3, 200)
    assert config.estimator == BPTT()


def test_an_estimator_may_have_a_type_as_layers_and_schedules_do() -> None:
    for variant in ({"variant": "paper", "unroll": 10}, {}):
        named = MetaSettings(estimator={"name": "pes"}, **variant)
        assert MetaSettings(estimator={"type": "pes"}, **variant) == named
    with pytest.raises(ValidationError):
        MetaSettings(estimator={"type": "pes", "name": "pes"})
