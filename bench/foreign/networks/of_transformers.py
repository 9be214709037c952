"""Networks of transformers, made from a configuration."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from bench.foreign.networks.network import ByKeyword
from bench.foreign.packages import transformers
from bench.foreign.tasks import Batch


def maker(kind: str, model_class: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    """Return what makes a network.

    Args:
        kind: Its model type, such as ``"gpt2"``.
        model_class: The name of its class, or of an ``Auto…`` class.
        options: Of its configuration.
    """

    def make() -> nn.Module:
        library = transformers()
        config = library.AutoConfig.for_model(kind, **options)
        wanted = getattr(library, model_class)
        made = wanted.from_config(config) if "Auto" in model_class else wanted(config)
        return ByKeyword(made).train()

    return make


def given(
    batches: Callable[[], list[Batch]], inputs: Callable[[Any, Any], dict[str, Tensor]]
) -> Callable[[], list[Batch]]:
    """Return batches whose x is the dict of keyword arguments that ``inputs`` makes of (x, y)."""
    return lambda: [(inputs(x, y), y) for x, y in batches()]


def of_logits(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Return the loss of the output's ``logits``."""
    return lambda z, y: loss(z.logits, y)
