"""Random jobs that the API accepts, each run for a few steps: what validates, runs.

    python -m bench.random_jobs [--jobs 300] [--seed 0]

Draws requests of every kind from the API's own schemas: all models, layers and optimizers with
random parameters, extreme ones among them, on small data sets of each task. Each is posted.
What is refused must be refused with a pointer; what is accepted is run by the engine in this
process, and must end. Prints what did not, with the request.
"""

import argparse
import io
import json
import os
import random
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import numpy as np
from fastapi.testclient import TestClient

from mlhf import runner
from mlhf.core.events import encode
from mlhf.data.info import DataInfo
from mlhf.models import specs as models
from mlhf.models.layer_specs import SequentialParams
from mlhf.models.shapes import Shape, _chain, input_shape
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf_service.context import Context
from mlhf_service.database import Database
from mlhf_service.main import create_app
from mlhf_service.migrate import migrate
from mlhf_service.queue.claims import claim_next
from mlhf_service.queue.prepare import prepare
from mlhf_service.settings import Settings
from mlhf_service.storage.factory import open_storage

Json = dict[str, Any]

_SECONDS = 60  # what has not ended by then hangs
# Fields that are sizes of a network: drawn small, so that a run takes milliseconds.
_SIZES = {
    "out_features",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "groups",
    "dilation",
    "dimension",
    "hidden_size",
    "num_layers",
    "heads",
    "hidden",
}


@dataclass(frozen=True)
class Failure:
    """A job that was accepted and did not run, or was refused without a pointer."""

    request: Json
    error: str
    trace: str = ""


class Draw:
    """Random values for a JSON Schema.

    Args:
        rng: Of all choices.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def value(self, schema: Json, definitions: Json, name: str = "") -> Any:
        if "$ref" in schema:
            return self.value(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions, name)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.rng.choice(schema["enum"])
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self.value(self.rng.choice(schema[union]), definitions, name)
        match schema.get("type"):
            case "null":
                return None
            case "boolean":
                return self.rng.random() < 0.5
            case "integer":
                return self._integer(schema, name)
            case "number":
                return self._number(schema)
            case "array":
                low = schema.get("minItems", 0)
                count = self.rng.randint(low, min(schema.get("maxItems", 3), low + 2))
                values = [self.value(schema["items"], definitions, name) for _ in range(count)]
                return sorted(values) if name == "at" else values
            case "object":
                return self.fields(schema, definitions)
        raise ValueError(f"no way to draw {schema}")

    def fields(self, schema: Json, definitions: Json, chance: float = 0.35) -> Json:
        """Return an object with its required fields and some of the others."""
        required = schema.get("required", [])
        return {
            name: self.value(field, definitions, name)
            for name, field in schema.get("properties", {}).items()
            if name in required or name == "type" or self.rng.random() < chance
        }

    def _integer(self, schema: Json, name: str) -> int:
        low, high = int(schema.get("minimum", 0)), int(schema.get("maximum", 1_000_000))
        if name == "iterations":
            high = min(high, 12)  # of MLHF, 250 take a minute a step
        if name in _SIZES:
            high = min(high, 6)
        if self.rng.random() < 0.3:
            return self.rng.choice([low, high])
        return max(low, min(high, low + int(10 ** self.rng.uniform(0, 2)) - 1))

    def _number(self, schema: Json) -> float:
        low = float(schema["minimum"] if "minimum" in schema else schema.get("exclusiveMinimum", 0))
        high = float(
            schema["maximum"] if "maximum" in schema else schema.get("exclusiveMaximum", 1e6)
        )
        if self.rng.random() < 0.3:
            ends = [low if "minimum" in schema else low + 1e-12]
            ends.append(high if "maximum" in schema else high * (1 - 1e-9))
            return float(self.rng.choice(ends))
        if high / max(low, 1e-6) > 1e3:
            return float(max(low, min(high, 10 ** self.rng.uniform(-6, 1))))
        return float(self.rng.uniform(low, high))


class Jobs:
    """Random requests for a deployment that holds some data sets.

    Args:
        rng: Of all choices.
        data: The sets' names and what they are.
    """

    def __init__(self, rng: random.Random, data: dict[str, DataInfo]) -> None:
        self.rng = rng
        self.draw = Draw(rng)
        self.data = data

    def job(self) -> Json:
        kind = self.rng.choices(["train", "sweep", "meta_train", "ablation"], [10, 2, 2, 1])[0]
        request: Json = {"kind": kind, "resources": {"device": "cpu", "threads": 1}}
        return request | cast(Json, getattr(self, f"_{kind}")())

    def _train(self) -> Json:
        target = {"metric": "train_loss", "value": 1.0, "stop": self.rng.random() < 0.5}
        return {
            **self._training(),
            "optimizer": self._optimizer(),
            "seed": self.rng.randrange(1000),
            **({"target": target} if self.rng.random() < 0.2 else {}),
        }

    def _sweep(self) -> Json:
        optimizer = self._optimizer()
        optimizer["params"].pop("lr", None)
        return {
            **self._training(),
            "optimizers": [{**optimizer, "grid": {"lr": [1e-3, 1e6]}}],
            "seeds": [0, 5],
        }

    def _ablation(self) -> Json:
        untrained = {"meta_checkpoint": "none"} if self.rng.random() < 0.5 else {}
        return {"tasks": [self._training()], **untrained}

    def _meta_train(self) -> Json:
        task = self._task()
        batch = max(2, task.pop("batch_size"))
        form = self.rng.choice(["kronecker", "paper", "l2l"])
        estimators: list[Json] = [{"name": "pes", "pairs": 1, "horizon": 2}]
        if form == "kronecker":
            estimators.append({"name": "search", "seeds": 1})
        else:
            estimators.append({"name": "bptt"})
        return {
            "optimizer": "l2l" if form == "l2l" else "mlhf",
            **({} if form == "l2l" else {"variant": form}),
            "tasks": [{**task, "batch_sizes": [batch], "initial_scales": [1.0]}],
            "iterations": self.rng.randint(1, 2),
            "unroll": 2,
            "estimator": self.rng.choice(estimators),
            "seed": self.rng.randrange(1000),
        }

    def _training(self) -> Json:
        budgets: list[Json] = [
            {"steps": self.rng.choice([1, 2, 3])},
            {"epochs": self.rng.choice([1e-9, 1e-3, 0.5, 1.0])},
            {"samples": self.rng.choice([1, 5, 40])},
            {"wall_seconds": self.rng.choice([1e-9, 0.01])},
        ]
        budget = dict(self.rng.choice(budgets))
        if self.rng.random() < 0.2:
            budget |= self.rng.choice(budgets)
        evaluation = self.rng.choice(
            [
                *({}, {"every_epochs": 1e-9}, {"every_epochs": 0.3}, {"max_samples": 1}),
                *({"samples": "all"}, {"samples": 1}, {"share": 0.5}),
            ]
        )
        return {**self._task(), "budget": budget, "evaluation": evaluation}

    def _task(self) -> Json:
        name, info = self.rng.choice(list(self.data.items()))
        samples = min(info.train_samples, self.rng.choice([1, 2, 3, 5, 9, 17, 40]))
        params: Json = {"train_samples": samples}
        if self.rng.random() < 0.5:
            params["test_samples"] = self.rng.choice([1, 2, 7])
        sizes = [1, 2, samples - 1, samples, max(1, samples // 2)]
        batch_size = min(samples, max(1, self.rng.choice(sizes)))
        return {
            "model": self._model(info),
            "dataset": {"name": name, "params": params},
            "batch_size": batch_size,
        }

    def _optimizer(self) -> Json:
        name = self.rng.choice(list(OPTIMIZERS))
        schema = OPTIMIZERS[name].params.model_json_schema()
        schema["properties"].pop("meta_checkpoint", None)
        schema["properties"].pop("compile", None)  # takes half a minute
        params = self.draw.fields(schema, schema.get("$defs", {}), 0.25)
        if "meta_checkpoint" in OPTIMIZERS[name].params.model_fields and self.rng.random() < 0.3:
            params["meta_checkpoint"] = "none"
        return {"name": name, "params": params}

    def _model(self, info: DataInfo) -> Json:
        fixed = ["mlp"] if info.kind != "text" else []
        if info.kind == "image":
            fixed += ["cuda_convnet", "resnet"]
        name = self.rng.choice([*fixed, *["sequential"] * 4])
        if name == "sequential":
            return {"name": name, "params": {"layers": self._layers(info)}}
        if name == "cuda_convnet":
            return {"name": name, "params": {"width": 0.125}}
        if name == "resnet":
            depth = self.rng.choice([8, 14, 18, 50])
            return {"name": name, "params": {"depth": depth, "width": 0.125}}
        schema = models.MODELS[name].params.model_json_schema()
        return {"name": name, "params": self.draw.fields(schema, schema.get("$defs", {}), 0.6)}

    def _layers(self, info: DataInfo) -> list[Json]:
        """Return layers that fit each other and the data."""
        layers: list[Json] = []
        shape = input_shape(info)
        if shape.tokens:
            layers.append({"type": "embedding", "dimension": self.rng.randint(1, 6)})
            shape = Shape((*shape.sizes, layers[0]["dimension"]))
        for _ in range(self.rng.randint(0, 5)):
            layer = self._layer()
            if (after := _after(shape, layer, info)) is not None:
                layers.append(layer)
                shape = after
        return [*layers, *self._head(shape, info)]

    def _layer(self) -> Json:
        schema = SequentialParams.model_json_schema()
        kinds = schema["$defs"]
        union = schema["properties"]["layers"]["items"]["oneOf"]
        name = self.rng.choice(union)["$ref"].rsplit("/", 1)[1]
        if name == "Residual":
            inner = [self._layer() for _ in range(self.rng.randint(1, 2))]
            return {"type": "residual", "layers": inner}
        return self.draw.fields(kinds[name], kinds, 0.4)

    def _head(self, shape: Shape, info: DataInfo) -> list[Json]:
        head: list[Json] = []
        if len(shape.sizes) == 3:
            head.append({"type": self.rng.choice(["flatten", "global_avg_pool"])})
        if len(shape.sizes) == 2 and info.kind != "text":
            head.append({"type": self.rng.choice(["last_step", "mean_over_time", "flatten"])})
        norm = [{"type": "batch_norm"}] if info.kind != "text" and self.rng.random() < 0.2 else []
        return [*head, *norm, {"type": "linear"}]


def _after(shape: Shape, layer: Json, info: DataInfo) -> Shape | None:
    """Return the shape after a layer; None where it does not take this one."""
    fixed = DataInfo(
        kind={1: "table", 2: "table", 3: "image"}[len(shape.sizes)],  # type: ignore[arg-type]
        input_shape=shape.sizes,
        outputs=info.outputs,
        task=info.task,
        train_samples=1,
        test_samples=1,
        vocabulary=info.vocabulary,
    )
    try:
        parsed = SequentialParams.model_validate({"layers": [layer]}).layers
        return _chain(parsed, Shape(shape.sizes), fixed, "")[-1].result
    except ValueError:
        return None


class Deployment:
    """A service without workers, in a folder of its own, with small data sets of each task."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(_env_file=None, data_dir=folder)
        (folder / "spool").mkdir(parents=True, exist_ok=True)
        self.database = Database(self.settings.database)
        migrate(self.database)
        self.storage = open_storage(self.settings)
        app = create_app(self.settings)
        app.state.doorbell.stop()
        self.client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        self.data = self._data()

    def _data(self) -> dict[str, DataInfo]:
        found = {}
        for name, form, file, params in _uploads():
            answer = self.client.post(
                "/v1/datasets",
                data={"name": name, "format": form, "params": json.dumps(params)},
                files=[("file", (file[0], file[1]))],
            )
            assert answer.status_code == 201, answer.text
            found[answer.json()["id"]] = DataInfo.from_dict(_info(answer.json()))
        digits = self.client.get("/v1/datasets/digits").json()
        return {"digits": DataInfo.from_dict(_info(digits)), **found}

    def check(self, request: Json) -> tuple[str, list[Failure]]:
        """Post a request and run what comes of it; return how it went, and what failed."""
        answer = self.client.post("/v1/jobs", json=request)
        if answer.status_code != 201:
            told = answer.json().get("errors")
            if answer.status_code == 422 and told and all(e["detail"] for e in told):
                return "refused", []
            return "failed", [Failure(request, f"{answer.status_code}: {answer.text}")]
        outcomes, failures = [], []
        while (claim := claim_next(self.database, "cpu", "check", 60.0)) is not None:
            with self.database.read() as session:
                context = Context(session, self.settings, self.storage)
                prepared = prepare(context, claim)
            try:
                with tempfile.TemporaryDirectory() as folder, _time_limit(_SECONDS):
                    for name, source in prepared.files.items():
                        (Path(folder) / name).write_bytes(source.read_bytes())
                    outcomes.append(_run(claim.kind, prepared.config, Path(folder)))
            except Exception as error:
                told = runner.failure(error)["error"]
                summary = f"{type(error).__name__}: {error}\n  told: {told}"
                failures.append(Failure(request, summary, traceback.format_exc()))
        return "failed" if failures else ", ".join(sorted(set(outcomes))), failures


def _run(kind: str, config: Json, folder: Path) -> str:
    (folder / "checkpoints").mkdir()
    before = Path.cwd()
    os.chdir(folder)  # where the trainer starts: a meta-checkpoint is named by its file there
    try:
        result = runner._function_of(kind)(
            config, on_event=encode, run_dir=folder, checkpoint_seconds=0.0
        )
    finally:
        os.chdir(before)
    return result.status


def _info(view: Json) -> Json:
    names = DataInfo.__dataclass_fields__
    return {name: view.get(name, view.get("info", {}).get(name)) for name in names}


def _uploads() -> Iterator[tuple[str, str, tuple[str, bytes], Json]]:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 3))
    classes = "\n".join(
        f"{a:.3f},{b:.3f},{'xyz'[i % 3]},{i % 2}" for i, (a, b, _) in enumerate(rows)
    )
    yield "classes", "table", ("a.csv", f"a,b,c,y\n{classes}\n".encode()), {"target": "y"}
    numbers = "\n".join(f"{a:.3f},{b:.3f},{c:.3f}" for a, b, c in rows)
    yield "numbers", "table", ("b.csv", f"a,b,y\n{numbers}\n".encode()), {"target": "y"}
    text = ("the quick brown fox jumps over the lazy dog. " * 20).encode()
    yield "text", "text", ("t.txt", text), {"sequence_length": 4}
    for name, shape in (("image", (1, 6, 6)), ("colour", (3, 5, 7)), ("tiny", (1, 4, 4))):
        yield name, "npz", (f"{name}.npz", _npz(rng, shape)), {"layout": "chw"}


def _npz(rng: np.random.Generator, shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    inputs = rng.integers(0, 256, (50, *shape), dtype=np.uint8)
    np.savez(out, x=inputs, y=np.arange(50) % 5)
    return out.getvalue()


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def expire(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"has not ended after {seconds} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        deployment = Deployment(Path(folder))
        for number in range(options.seed, options.seed + options.jobs):
            request = Jobs(random.Random(number), deployment.data).job()
            outcome, failures = deployment.check(request)
            outcomes[outcome] += 1
            for failure in failures:
                print(f"\n== job {number}\n{json.dumps(failure.request)}\n{failure.error}")
                print("".join(failure.trace.splitlines(keepends=True)[-8:]), flush=True)
    print(f"\n{options.jobs} jobs from seed {options.seed}: {dict(outcomes)}")


if __name__ == "__main__":
    main()
