"""Digests of short runs, to show that a change of the code changes no number.

Records, on one machine, the digest of every optimizer's curve and final weights on four small
networks, of each way of meta-training, and of an ablation; then compares them with another
version of the code on the same machine (other processors round differently):

    python -m bench.digests record before.json     # with the old version installed
    python -m bench.digests compare before.json    # with the new one; 1 if anything differs

``--package`` names the package if it is not ``mlhf``.
"""

import argparse
import hashlib
import importlib
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

_LETTERS = "abcdefgh ."
_RELU = {"type": "activation"}
_DIGITS = {"name": "digits", "params": {"train_samples": 400, "test_samples": 60}}
_MLP = {"name": "mlp", "params": {"hidden": [24, 16], "batch_norm": True, "dropout": 0.1}}


def _sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"name": "sequential", "params": {"layers": list(layers)}}


def _networks(text: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return (model, data set) by name: all kinds of layers between them."""
    convolution = {"type": "conv2d", "out_channels": 8, "padding": 1}
    attention = {
        "type": "residual",
        "layers": [{"type": "layer_norm"}, {"type": "causal_attention", "heads": 2}],
    }
    letters = {"name": "text", "params": {"sequence_length": 12}, "root": str(text)}
    return {
        "mlp": (_MLP, _DIGITS),
        "convnet": (
            _sequential(
                convolution,
                {"type": "batch_norm"},
                _RELU,
                {"type": "max_pool2d"},
                {"type": "flatten"},
                {"type": "linear", "out_features": 16},
                _RELU,
                {"type": "linear"},
            ),
            _DIGITS,
        ),
        "lstm": (
            _sequential(
                {"type": "embedding", "dimension": 8},
                {"type": "lstm", "hidden_size": 12},
                {"type": "linear"},
            ),
            letters,
        ),
        "transformer": (
            _sequential(
                {"type": "embedding", "dimension": 16},
                {"type": "position_embedding"},
                attention,
                {"type": "layer_norm"},
                {"type": "linear"},
            ),
            letters,
        ),
    }


_OPTIMIZERS: dict[str, dict[str, Any]] = {
    **{
        name: {"name": name}
        for name in (
            *("sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "schedule_free_adamw"),
            *("muon", "shampoo", "soap", "kfac", "hf", "hf_lm", "hf_adam", "mlhf", "l2l"),
            *("gauss_newton", "lm", "lbfgs", "engd_w", "spring"),
        )
    },
    "mlhf untrained": {"name": "mlhf", "params": {"meta_checkpoint": "none", "iterations": 3}},
    "mlhf decay": {"name": "mlhf", "params": {"weight_decay": 1e-3, "autocast": "bfloat16"}},
    "mlhf paper": {"name": "mlhf", "params": {"variant": "paper"}},
    "mlhf paper split": {"name": "mlhf", "params": {"variant": "paper", "micro_batch": 8}},
    "mlhf paper compiled": {"name": "mlhf", "params": {"variant": "paper", "compile": True}},
    "hf split": {"name": "hf_adam", "params": {"micro_batch": 8, "curvature_batch": 16}},
}

_META: dict[str, dict[str, Any]] = {
    "pes": {"iterations": 2, "unroll": 8, "replay": {"fresh": 1.0}},
    "search": {"iterations": 3, "unroll": 8, "estimator": {"name": "search", "seeds": 2}},
    "paper": {"iterations": 4, "unroll": 3, "variant": "paper"},
    "paper pes": {
        "iterations": 2,
        "unroll": 3,
        "variant": "paper",
        "estimator": {"name": "pes", "pairs": 2, "horizon": 6},
    },
    "l2l": {"iterations": 4, "unroll": 3, "optimizer": "l2l"},
}


_COMMON = {"batch_size": 32, "seed": 3, "threads": 1, "device": "cpu"}


class _Digest:
    """The values of a run's points and its tensors, hashed bit for bit."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def on_event(self, event: Any) -> None:
        if event["type"] == "points":
            for point in event["points"]:
                # Seconds differ from run to run; everything else is the run's own.
                values = {k: v for k, v in point["values"].items() if "seconds" not in k}
                self._hash.update(repr((point["step"], sorted(values.items()))).encode())

    def tensors(self, values: Any) -> None:
        for name, tensor in sorted(values.items()):
            self._hash.update(name.encode())
            self._hash.update(tensor.detach().cpu().contiguous().flatten().numpy().tobytes())

    def text(self) -> str:
        return self._hash.hexdigest()[:16]


def _train(library: Any, network: Any, optimizer: dict[str, Any]) -> str:
    model, data = network
    digest = _Digest()
    config = {"model": model, "dataset": data, "optimizer": optimizer, "budget": {"steps": 60}}
    result = library.train({**config, **_COMMON}, on_event=digest.on_event)
    digest.tensors(result.model.state_dict())
    return digest.text()


def _meta(library: Any, settings: dict[str, Any]) -> str:
    digest = _Digest()
    task = {"model": {"name": "mlp", "params": {"hidden": [12]}}, "dataset": _DIGITS}
    config = {"optimizer": "mlhf", "tasks": [task], "seed": 1, "threads": 1, "device": "cpu"}
    result = library.meta_train({**config, **settings}, on_event=digest.on_event)
    for network, values in sorted(result.checkpoint.weights.items()):
        digest.tensors({f"{network}.{name}": value for name, value in values.items()})
    return digest.text()


def _ablation(library: Any) -> str:
    # Version 0.1, whose package was `engine`, had it elsewhere.
    home = "engine.experiments.ablation" if library.__name__ == "engine" else "mlhf.ablation.run"
    ablate = importlib.import_module(home).ablate
    digest = _Digest()
    model, data = {"name": "mlp", "params": {"hidden": [12]}}, _DIGITS
    optimizer = {"name": "mlhf", "params": {"variant": "paper", "meta_checkpoint": "default"}}
    config = {"task": "digits", "model": model, "dataset": data, "budget": {"steps": 8}}
    with tempfile.TemporaryDirectory() as folder:
        ablate({**config, "optimizer": optimizer, **_COMMON}, digest.on_event, Path(folder))
    return digest.text()


def _cases(library: Any, text: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    for network_name, network in _networks(text).items():
        for name, optimizer in _OPTIMIZERS.items():
            if name.endswith("compiled") and network_name != "mlp":
                continue
            yield (
                f"{network_name}: {name}",
                lambda n=network, o=optimizer: _train(library, n, o),  # type: ignore[misc]
            )
    for name, settings in _META.items():
        yield f"meta: {name}", lambda s=settings: _meta(library, s)  # type: ignore[misc]
    yield "ablation", lambda: _ablation(library)


def _all(package: str) -> dict[str, str]:
    torch.set_num_threads(1)
    library = importlib.import_module(package)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        draw = random.Random(0)
        text = "".join(draw.choice(_LETTERS) for _ in range(6000))
        (Path(folder) / "input.txt").write_text(text)
        for name, run in _cases(library, Path(folder)):
            try:
                found[name] = run()
            except Exception as error:  # a refusal is a result too
                found[name] = f"{type(error).__name__}: {error}"
            print(f"{name:32} {found[name]}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--package", default="mlhf")
    given = parser.parse_args()
    found = _all(given.package)
    if given.action == "record":
        given.file.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    before: dict[str, str] = json.loads(given.file.read_text())
    differ = [name for name in before | found if before.get(name) != found.get(name)]
    for name in differ:
        print(f"differs: {name}: {before.get(name)} -> {found.get(name)}")
    print(f"{len(found) - len(differ)} of {len(found)} digests are equal")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
