"""Whatever is sent: never a 5xx, never an answer that breaks the OpenAPI document.

    python -m bench.fuzz [--cases 10000] [--uploads 10000] [--walks 200] [--seed 0] [--url URL]

The cases are schemathesis's, within and just outside the document, operation by operation. Jobs
are really made: three bodies of ``POST /v1/jobs`` in four are jobs that can be run, most of them
changed in one place, and ids in paths are mostly those of what there is. The walks follow the
links of the document, from a job to its run, its curves, its files, and to their deletion
(``bench.fuzz_walks``). The uploads are small
data sets of each format with some bytes changed, cut off or repeated; afterwards nothing of one
that was refused may be left. Prints how many were sent, what was answered, and every breach;
ends with code 1 if there was one.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from fastapi.testclient import TestClient
from schemathesis import checks

from bench import fuzz_uploads, fuzz_walks
from mlhf_service.database import Database
from mlhf_service.main import create_app
from mlhf_service.migrate import migrate
from mlhf_service.settings import Settings

HOST = {"Host": "127.0.0.1"}
HANGS_SECONDS = 60.0  # a request that takes longer, on a busy machine too
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
NETWORK: dict[str, Any] = {
    "model": {"name": "mlp", "params": {"hidden": [8]}},
    "dataset": {"name": "digits"},
    "budget": {"steps": 3},
}
JOBS: list[dict[str, Any]] = [
    {"kind": "train", **NETWORK, "optimizer": {"name": "adam"}, "tags": {"a": "b"}},
    {
        "kind": "sweep",
        **NETWORK,
        "optimizers": [{"name": "adam", "grid": {"lr": [0.1, 0.2]}}, {"name": "hf_adam"}],
        "seeds": [0, 1],
    },
    {"kind": "ablation", "tasks": [NETWORK]},
    {
        "kind": "meta_train",
        "tasks": [{"model": NETWORK["model"], "dataset": NETWORK["dataset"]}],
        "budget": {"steps": 2},
    },
]
VALUES: list[Any] = [None, 0, -1, 2**63, 1.5, "", "x", "\u202e", [], {}, True, "mlp", [1], {"a": 1}]


class Fuzzer:
    """Sends cases to one application, with the ids of what it has seen made."""

    def __init__(self, client: TestClient, seed: int) -> None:
        self.client = client
        self.chance = random.Random(seed)
        self.ids: dict[str, list[str]] = {}
        self.answers: Counter[tuple[str, int]] = Counter()
        self.breaches: dict[str, str] = {}

    def prepare(self, case: Any) -> None:
        """Let the case be about things that there are, mostly."""
        for name in case.path_parameters or {}:
            known = self.ids.get(name)
            if known and self.chance.random() < 0.85:
                case.path_parameters[name] = self.chance.choice(known)
        if case.operation.label == "POST /v1/jobs" and self.chance.random() < 0.75:
            case.body = self._job()

    def _job(self) -> Any:
        body = _copy(self.chance.choice(JOBS))
        if self.chance.random() < 0.7:
            place, key = self.chance.choice(list(_places(body)))
            place[key] = self.chance.choice(VALUES)
        return body

    def send(self, case: Any) -> None:
        label = case.operation.label
        self.prepare(case)
        if label.endswith("/events") and not self._has_ended(case):
            return  # it would never end
        try:
            response = case.call(headers=HOST, timeout=HANGS_SECONDS)
        except Exception as fault:  # what a client would see as a 500
            self.answers[label, 500] += 1
            self._breach(label, 500, f"{type(fault).__name__}: {fault}")
            return
        self.answers[label, response.status_code] += 1
        try:
            case.validate_response(response, checks=CHECKS)
        except BaseExceptionGroup as group:
            for error in group.exceptions:
                self._breach(label, response.status_code, str(error))
        except AssertionError as error:
            self._breach(label, response.status_code, str(error))
        self._learn(response)

    def _breach(self, label: str, status: int, text: str) -> None:
        self.breaches.setdefault(f"{label} {status}: {text.splitlines()[0]}", text)

    def _has_ended(self, case: Any) -> bool:
        job_id = str(case.path_parameters["job_id"])
        if not re.fullmatch(r"job_[0-9a-z]{26}", job_id):
            return True
        job = self.client.get(f"/v1/jobs/{job_id}")
        return job.status_code != 200 or job.json()["finished_at"] is not None

    def _learn(self, response: Any) -> None:
        if response.status_code not in (200, 201) or b'"id"' not in response.content[:10_000]:
            return
        for found in set(re.findall(rb'"((?:job|run|ds|mc|wh|key)_[0-9a-z_]+)"', response.content)):
            name = found.decode()
            parameter = _PARAMETERS[name.partition("_")[0]]
            known = self.ids.setdefault(parameter, [])
            if name not in known:
                known.append(name)
                del known[:-200]


_PARAMETERS = {
    "job": "job_id",
    "run": "run_id",
    "ds": "dataset_id",
    "mc": "identity",
    "wh": "webhook_id",
    "key": "key_id",
}


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value


def _places(value: Any) -> Any:
    """Every container and key in it, at any depth."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield value, key
            yield from _places(one)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield value, index
            yield from _places(one)


def fuzz(client: TestClient, app: Any, cases: int, seed: int, under: str = "/") -> Fuzzer:
    """Send about ``cases`` cases, spread over all operations whose path begins so; jobs get ten
    shares.
    """
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HOST)
    operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    operations = [one for one in operations if one.path.startswith(under)]
    fuzzer = Fuzzer(client, seed)
    weights = {one.label: 10 if one.label == "POST /v1/jobs" else 1 for one in operations}
    share = cases / sum(weights.values())
    # Twice through all: the second time there is something to ask for.
    for round_ in range(2):
        for operation in operations:
            count = max(1, round(share * weights[operation.label] / 2))

            @hypothesis.seed(seed + round_)
            @hypothesis.settings(
                max_examples=count,
                deadline=None,
                database=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(operation.as_strategy())
            def one(case: Any) -> None:
                fuzzer.send(case)

            one()
    return fuzzer


def report(fuzzer: Fuzzer) -> None:
    by_class: Counter[str] = Counter()
    for (_, status), count in fuzzer.answers.items():
        by_class[f"{status // 100}xx"] += count
    made = fuzzer.answers["POST /v1/jobs", 201]
    print(f"{fuzzer.answers.total():,} cases: {dict(sorted(by_class.items()))}; {made} jobs made")
    for key, text in fuzzer.breaches.items():
        print(f"BREACH {key}\n    " + text.replace("\n", "\n    "))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--uploads", type=int, default=10_000)
    parser.add_argument("--walks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", default="", help="Of an empty database; default: SQLite.")
    options = parser.parse_args()
    began, wrong = time.monotonic(), False
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            _env_file=None, data_dir=Path(folder), database_url=options.url, max_sweep_runs=32
        )
        database = Database(settings.database)
        migrate(database)
        database.dispose()
        app = create_app(settings)
        with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
            if options.cases:
                fuzzer = fuzz(client, app, options.cases, options.seed)
                report(fuzzer)
                wrong = bool(fuzzer.breaches)
            if options.walks:
                walked = fuzz_walks.walk(app, options.walks, options.seed)
                print(walked.line())
                wrong = wrong or bool(walked.breaches)
            if options.uploads:
                found = fuzz_uploads.fuzz(client, settings, options.uploads, options.seed)
                print(found.line())
                wrong = wrong or bool(found.wrong)
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(int(wrong))


if __name__ == "__main__":
    main()
