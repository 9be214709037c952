"""Meta-training through the queue: killed, resumed, kept, and used by a training run."""

from itertools import accumulate
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.meta_checkpoints.files import check
from mlhf_service.meta_checkpoints.models import MetaCheckpoint
from tests.app.queue.worker import Service, kill

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

META: dict[str, Any] = {
    "kind": "meta_train",
    "name": "small tasks",
    "optimizer": "mlhf",
    "tasks": [
        {
            "model": {"name": "mlp", "params": {"hidden": [8]}},
            "dataset": {"name": "digits", "params": {"train_samples": 256}},
            "batch_sizes": [32],
        }
    ],
    "iterations": 40,
    "unroll": 3,
    "seed": 3,
}
TRAIN: dict[str, Any] = {
    "kind": "train",
    "model": {"name": "mlp", "params": {"hidden": [16]}},
    "dataset": {"name": "digits"},
    "budget": {"epochs": 2},
    "batch_size": 64,
}


@pytest.mark.long
@pytest.mark.parametrize(("variant", "family"), [("kronecker", "mlhf"), ("paper", "mlhf_paper")])
def test_from_meta_training_to_a_run_that_uses_it(
    worker: Service, client: TestClient, variant: str, family: str
) -> None:
    meta = {**META, "variant": variant}
    optimizer = {"name": "mlhf", "params": {"variant": variant}}
    created = client.post("/v1/jobs", json=meta)
    assert created.status_code == 201, created.text
    killer = worker.when_checkpointed(kill)
    run_id = worker.work().claim.run_id
    killer.join()
    assert worker.run(run_id).status == "queued", "it was not killed before its end"
    worker.work()
    job = client.get(f"/v1/jobs/{created.json()['id']}").json()
    assert (job["status"], job["kind"], job["attempts"]) == ("succeeded", "meta_train", 2)
    curves = client.get(f"/v1/runs/{run_id}/curves", params={"x": "steps"}).json()
    lengths = {s["metric"]: len(s["points"]) for s in curves["series"]}
    assert 40 in lengths.values(), lengths

    (made,) = worker.all(MetaCheckpoint)
    assert (made.source, made.job_id, made.run_id) == ("meta_train", job["id"], run_id)
    assert made.lineage["iterations"] == 40
    assert made.lineage["config"]["tasks"][0]["data_digest"]
    assert str(worker.settings.root) not in str(made.lineage), "a path of the server leaked"
    check(worker.storage.path(made.storage_key))
    shown = client.get(f"/v1/meta-checkpoints/{made.id}").json()
    assert (shown["used_by"], shown["aliases"]) == (0, [])
    file = client.get(f"/v1/meta-checkpoints/{made.id}/file")
    assert file.headers["etag"] == f'"{made.sha256}"'

    again = client.post(
        "/v1/meta-checkpoints",
        data={"name": "again"},
        files={"file": ("x.safetensors", file.content)},
    )
    assert again.status_code == 201, again.text
    assert again.json()["sha256"] == made.sha256
    assert again.json()["optimizer"] == made.optimizer == family

    alias = client.put(
        f"/v1/meta-checkpoints/aliases/{family}/default", json={"meta_checkpoint_id": made.id}
    )
    assert alias.json()["aliases"] == ["default"]
    used = client.post("/v1/jobs", json={**TRAIN, "optimizer": optimizer})
    assert used.status_code == 201, used.text
    run = worker.run(worker.work().claim.run_id)
    assert run.status == "succeeded", run.error
    assert run.meta_checkpoint_id == made.id
    assert run.config["optimizer"]["params"]["meta_checkpoint"] == made.id
    assert client.get(f"/v1/meta-checkpoints/{made.id}").json()["used_by"] == 1

    further = client.post("/v1/jobs", json={**meta, "start": made.id, "iterations": 2})
    assert further.status_code == 201, further.text
    worker.work()
    latest = max(worker.all(MetaCheckpoint), key=lambda row: row.id)
    assert latest.parent_id == made.id


@pytest.mark.slow
def test_the_smallest_kronecker_job_and_a_sweep_over_both_variants(
    worker: Service, client: TestClient
) -> None:
    small = {**META, "unroll": 5, "iterations": 1, "estimator": {"name": "pes", "pairs": 1}}
    created = client.post("/v1/jobs", json=small)
    assert created.status_code == 201, created.text
    spec = created.json()["spec"]
    assert (spec["variant"], spec["clip"], spec["estimator"]["horizon"]) == ("kronecker", 0.0, 5)
    meta_run = worker.run(worker.work().claim.run_id)
    assert meta_run.status == "succeeded", meta_run.error
    (made,) = worker.all(MetaCheckpoint)
    client.put("/v1/meta-checkpoints/aliases/mlhf/mine", json={"meta_checkpoint_id": made.id})

    grid = {"variant": ["kronecker", "paper"]}
    sweep = {
        **{key: value for key, value in TRAIN.items() if key != "kind"},
        "kind": "sweep",
        "optimizers": [
            {"name": "mlhf", "grid": grid},
            {"name": "mlhf", "params": {"meta_checkpoint": "mine"}},
        ],
    }
    created = client.post("/v1/jobs", json=sweep)
    assert created.status_code == 201, created.text
    used = []
    for _ in range(3):
        run = worker.run(worker.work().claim.run_id)
        assert run.status == "succeeded", run.error
        used.append((run.config["optimizer"]["params"]["variant"], run.meta_checkpoint_id))
    assert used == [
        ("kronecker", "mc_shipped_mlhf"),
        ("paper", "mc_shipped_mlhf_paper"),
        ("kronecker", made.id),
    ]
    stats = {"damping", "momentum", "step_factor"}
    run_id = created.json()["run_ids"][2]
    asked = {"metric": sorted(stats), "x": "steps"}
    series = client.get(f"/v1/runs/{run_id}/curves", params=asked).json()["series"]
    assert {s["metric"] for s in series if s["points"]} == stats


@pytest.mark.parametrize(
    ("variant", "name", "told"),
    [
        (
            "kronecker",
            "mc_shipped_mlhf_paper",
            "for mlhf with variant paper, not for mlhf with variant kronecker",
        ),
        (
            "paper",
            "mc_shipped_mlhf",
            "for mlhf with variant kronecker, not for mlhf with variant paper",
        ),
        ("paper", "mc_shipped_l2l", "for l2l, not for mlhf with variant paper"),
        ("paper", "mine", "no meta-checkpoint of this name for mlhf with variant paper"),
    ],
)
def test_a_meta_checkpoint_of_the_other_variant_is_refused(
    client: TestClient, variant: str, name: str, told: str
) -> None:
    params = {"variant": variant, "meta_checkpoint": name}
    train = client.post("/v1/jobs", json={**TRAIN, "optimizer": {"name": "mlhf", "params": params}})
    meta = client.post("/v1/jobs", json={**META, "variant": variant, "start": name})
    for response, pointer in ((train, "/optimizer/params/meta_checkpoint"), (meta, "/start")):
        assert response.status_code == 422, response.text
        (error,) = response.json()["errors"]
        assert error["pointer"] == pointer
        assert told in error["detail"]


@pytest.mark.slow
def test_a_search_over_single_weights_goes_on_from_what_is_shipped(
    worker: Service, client: TestClient
) -> None:
    moves = [{"damping.kinds.2": 0.5}, {"step.weight.1.0": -0.25, "step.weight.1.2": -0.25}]
    search = {"name": "search", "seeds": 2, "moves": moves}
    job = {**META, "unroll": 4, "iterations": 3, "estimator": search, "start": "default"}
    created = client.post("/v1/jobs", json=job)
    assert created.status_code == 201, created.text
    run_id = worker.work().claim.run_id
    run = client.get(f"/v1/runs/{run_id}").json()
    assert (run["status"], run["progress"]["step"]) == ("succeeded", 6), run
    told = client.post("/v1/jobs?validate_only=true", json=job).json()
    assert told["total_steps"] == 6
    (made,) = worker.all(MetaCheckpoint)
    tried = made.lineage["tried"]
    assert [t["move"] for t in tried][:2] == [{}, moves[0]]
    assert made.lineage["start"]["kinds"] == made.lineage["kinds"] == [0, 1, 2, 3, 4, 5]
    curves = client.get(f"/v1/runs/{run_id}/curves", params={"x": "steps"}).json()
    points = {s["metric"]: [x for x, _ in s["points"]] for s in curves["series"]}
    ends = list(accumulate(t["runs"] for t in tried))
    assert points["meta_loss"] == points["candidate"] == ends, "a point for each candidate"


@pytest.mark.slow
def test_untrained_networks_are_a_control(worker: Service, client: TestClient) -> None:
    optimizer = {"name": "mlhf", "params": {"meta_checkpoint": "none"}}
    assert client.post("/v1/jobs", json={**TRAIN, "optimizer": optimizer}).status_code == 201
    run = worker.run(worker.work().claim.run_id)
    assert (run.status, run.meta_checkpoint_id) == ("succeeded", None)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"tasks": []}, "/tasks"),
        ({"tasks": [{**META["tasks"][0], "model": {"name": "x"}}]}, "/tasks/0/model/name"),
        ({"tasks": [{**META["tasks"][0], "dataset": {"name": "x"}}]}, "/tasks/0/dataset/name"),
        ({"tasks": [{**META["tasks"][0], "batch_sizes": [999]}]}, "/tasks/0/batch_sizes/0"),
        (
            {"tasks": [{**META["tasks"][0], "dataset": {"name": "digits", "root": "/etc"}}]},
            "/tasks/0/dataset/root",
        ),
        ({"start": "../../etc/passwd"}, "/start"),
        ({"start": "mc_0000"}, "/start"),
        ({"start": "mc_shipped_l2l"}, "/start"),
        ({"iterations": 0}, "/iterations"),
        ({"estimator": {"name": "pes", "sigma": -1}}, "/estimator/sigma"),
        ({"estimator": {"name": "pes", "horizon": 1}}, "/estimator"),
        ({"estimator": {"name": "pes", "horizon": 4}}, "/estimator"),
        ({"estimator": {"name": "bptt"}}, "/estimator"),
        ({"estimator": {"name": "search", "moves": [{"step.x": 1}]}}, "/estimator/moves"),
        ({"estimator": {"name": "search", "step": 0}}, "/estimator/step"),
        ({"variant": "paper", "estimator": {"name": "search"}}, "/estimator"),
        ({"clip": 1.0}, "/clip"),
        ({"variant": "x"}, "/variant"),
        ({"variant": "paper", "estimator": {"name": "pes", "horizon": 1}}, ""),
        ({"threads": 2}, "/threads"),
        (
            {
                "variant": "paper",
                "unroll": 1000,
                "tasks": [{"model": {"name": "cuda_convnet"}, "dataset": {"name": "digits"}}],
            },
            "/tasks/0/model",
        ),
    ],
)
def test_bad_meta_training_is_refused(
    client: TestClient, changes: dict[str, Any], pointer: str
) -> None:
    response = client.post("/v1/jobs", json={**META, **changes})
    assert response.status_code == 422, response.text
    assert any(e["pointer"].startswith(pointer) for e in response.json()["errors"])
    assert "Value error" not in response.text


def test_whole_runs_need_no_memory_for_each_of_their_steps(client: TestClient) -> None:
    tasks = [{"model": {"name": "cuda_convnet"}, "dataset": {"name": "digits"}}]
    needed = [
        client.post(
            "/v1/jobs?validate_only=true", json={**META, "unroll": unroll, "tasks": tasks}
        ).json()["memory_bytes"]
        for unroll in (300, 1000)
    ]
    batch = 4 * 64 * 64  # bytes of 64 samples of 8x8
    assert needed[1] - needed[0] == 700 * batch


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "nope", "mc_0000", "mc_shipped_l2l", "a\x00b", "./x.safetensors"],
)
def test_users_name_meta_checkpoints_never_files(client: TestClient, name: str) -> None:
    optimizer = {"name": "mlhf", "params": {"meta_checkpoint": name}}
    response = client.post("/v1/jobs", json={**TRAIN, "optimizer": optimizer})
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == "/optimizer/params/meta_checkpoint"
