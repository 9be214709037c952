"""Networks of timm: its own constructors, with fewer and narrower layers, on 32x32 images."""

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any

from torch import nn

from bench.foreign import tasks
from bench.foreign.networks.network import Network
from bench.foreign.packages import timm

_NARROW = {"channels": (16, 32, 64, 128), "layers": (1, 1, 1, 1)}
_TOKENS = {"img_size": 32, "patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 3}
_STAGES = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "img_size": 32, "patch_size": 2}
_WINDOWS = {**_STAGES, "window_size": 4}
_LEVELS = {"depths": (1, 1, 2, 1), "dims": (16, 32, 64, 96)}

# By timm's name for it, or for its class; the options make it small.
_OPTIONS: dict[str, dict[str, Any]] = {
    # convolutional
    "resnet18": _NARROW,
    "resnet50": _NARROW,
    "resnext50_32x4d": {**_NARROW, "cardinality": 4, "base_width": 16},
    "test_nfnet": {},
    "densenet121": {"growth_rate": 8, "block_config": (2, 2, 2, 2)},
    "regnetx_002": {},
    "mobilenetv3_small_050": {},
    "test_efficientnet": {},
    "convnext_atto": _LEVELS,
    "convnextv2_atto": _LEVELS,
    # of tokens
    "vit_tiny_patch16_224": _TOKENS,
    "deit_tiny_distilled_patch16_224": _TOKENS,
    "cait_xxs24_224": {**_TOKENS, "depth_token_only": 1},
    "beit_base_patch16_224": _TOKENS,
    "eva02_tiny_patch14_224": _TOKENS,
    "swin_tiny_patch4_window7_224": _WINDOWS,
    "swinv2_tiny_window8_256": _WINDOWS,
    "mlp_mixer.MlpMixer": {"img_size": 32, "patch_size": 4, "embed_dim": 48, "num_blocks": 3},
    "metaformer.MetaFormer": _LEVELS,
    "xcit_nano_12_p8_224": {"img_size": 32, "embed_dim": 48, "depth": 2, "num_heads": 3},
    "test_coatnet": {"img_size": 32},
    "mambaout_femto": _LEVELS,
}


def networks() -> dict[str, Network]:
    """Return the networks by name."""
    return {
        f"timm {name}": Network(_maker(name, options), tasks.images)
        for name, options in _OPTIONS.items()
    }


def _maker(name: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        library = timm()
        build = partial(library.create_model, name)
        if "." in name:
            build = attrgetter(name)(library.models)
        made: nn.Module = build(num_classes=tasks.CLASSES, **options)
        return made

    return make
