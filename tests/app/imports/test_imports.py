"""Runs from what other tools wrote."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.imports.names import metric_of, place_of
from mlhf_service.imports.readers import ImportFailedError, read
from mlhf_service.kit.event_files import EventFileError, Scalar
from mlhf_service.kit.event_files import read as read_events
from mlhf_service.kit.event_files import write as write_events

CSV = b"step,epoch,Loss/train,val_loss,note\n1,0.5,1.0,,a\n2,1.0,0.5,0.75,b\n"


def send(client: TestClient, format: str, *files: tuple[str, bytes], **data: Any) -> Any:
    fields = {name: json.dumps(value) for name, value in data.items()}
    parts = [("file", file) for file in files]
    return client.post("/v1/imports", data={"format": format, **fields}, files=parts)


def curve(client: TestClient, run_id: str, metric: str, x: str = "samples") -> Any:
    params = {"metric": metric, "x": x}
    answer = client.get(f"/v1/runs/{run_id}/curves", params=params).json()
    return answer["series"][0]["points"]


def test_a_csv_becomes_a_run(client: TestClient) -> None:
    run = {"name": "theirs", "optimizer": "lion", "project": "p", "batch_size": 32}
    answer = send(client, "csv", ("run.csv", CSV), run=run)
    assert answer.status_code == 201, answer.text
    report = answer.json()
    assert report["metrics"] == {"Loss/train": "train_loss", "val_loss": "test_loss"}
    assert "note" in report["ignored"]
    made = report["run"]
    assert (made["status"], made["optimizer"], made["name"]) == ("succeeded", "lion", "theirs")
    assert made["totals"]["epochs"] == 1.0
    assert curve(client, made["id"], "train_loss") == [[32, 1.0], [64, 0.5]]
    assert curve(client, made["id"], "test_loss", "steps") == [[2, 0.75]]


def test_a_history_of_weights_and_biases_becomes_a_run(client: TestClient) -> None:
    lines = [
        {"_step": 0, "_runtime": 1.5, "_timestamp": 1e9, "train/loss": 2.0, "gradients": {"a": 1}},
        {"_step": 1, "_runtime": 3.0, "train/loss": "NaN", "val/acc": 0.5},
    ]
    text = "\n".join(json.dumps(line) for line in lines).encode()
    report = send(client, "wandb", ("history.jsonl", text)).json()
    assert report["metrics"] == {"train/loss": "train_loss", "val/acc": "test_accuracy"}
    run_id = report["run"]["id"]
    assert curve(client, run_id, "train_loss", "wall_seconds") == [[1.5, 2.0], [3.0, "NaN"]]
    as_csv = b"_step,train/loss\n0,2.0\n1,1.0\n"
    assert send(client, "wandb", ("export.csv", as_csv)).json()["points"] == 2


def events(*scalars: Scalar) -> bytes:
    return b"".join(write_events(scalars))


def test_event_files_of_one_run_are_put_together(client: TestClient) -> None:
    train = events(Scalar("Loss/train", 1, 100.0, 1.0), Scalar("Loss/train", 2, 101.0, 0.5))
    test = events(Scalar("Loss/val", 2, 101.5, 0.75), Scalar("lr", 2, 101.5, 0.125))
    report = send(client, "tensorboard", ("a.tfevents", train), ("b.tfevents", test)).json()
    assert report["metrics"] == {"Loss/train": "train_loss", "Loss/val": "test_loss", "lr": "lr"}
    run_id = report["run"]["id"]
    assert curve(client, run_id, "train_loss", "wall_seconds") == [[0.0, 1.0], [1.0, 0.5]]
    assert curve(client, run_id, "lr", "steps") == [[2, 0.125]]


def test_what_we_write_for_tensorboard_can_be_imported_again(client: TestClient) -> None:
    run_id = send(client, "csv", ("run.csv", CSV)).json()["run"]["id"]
    name = "events.out.tfevents.mlhf"
    listed = client.get(f"/v1/runs/{run_id}/artifacts").json()["data"]
    assert name in {file["name"] for file in listed}
    content = client.get(f"/v1/runs/{run_id}/artifacts/{name}").content
    again = send(client, "tensorboard", (name, content)).json()["run"]["id"]
    for metric in ("train_loss", "test_loss"):
        assert curve(client, again, metric, "steps") == curve(client, run_id, metric, "steps")


@pytest.mark.parametrize(
    ("format", "content", "says"),
    [
        ("csv", b"step,loss\n1,0.5\n2,low\n", "line 3, loss: 'low' is no number"),
        ("csv", b"step,loss\n1,0.5,7\n", "line 2 has more cells"),
        ("csv", b"loss,loss\n1,2\n", "comes twice"),
        ("csv", b"step,loss,train_loss\n1,2,3\n", "would both be train_loss: rename"),
        ("csv", b"step,loss\n-1,2\n", "no place on an axis"),
        ("csv", b"step,note\n1,a\n", "no measured numbers"),
        ("csv", b"\xff\xfe", "no UTF-8 text"),
        ("csv", b"", "no measured numbers"),
        ("wandb", b'{"loss": 1}\n{"loss": ', "line 2 is no JSON"),
        ("wandb", b'{"loss": 1}\n[1]', "line 2 is no JSON object"),
        ("tensorboard", b"not an event file at all", "no record of an event file at byte 0"),
    ],
)
def test_a_file_that_cannot_be_read_is_said(
    client: TestClient, format: str, content: bytes, says: str
) -> None:
    answer = send(client, format, ("file", content))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/file"
    assert says in answer.json()["detail"]
    assert client.get("/v1/runs").json()["data"] == []


def test_a_column_can_be_renamed(client: TestClient) -> None:
    content = b"batch,err\n1,0.5\n2,0.25\n"
    rename = {"batch": "step", "err": "test_loss"}
    report = send(client, "csv", ("f.csv", content), rename=rename).json()
    assert report["metrics"] == {"err": "test_loss"}
    assert curve(client, report["run"]["id"], "test_loss", "steps") == [[1, 0.5], [2, 0.25]]
    assert send(client, "csv", ("f.csv", CSV), rename={"a": 1}).status_code == 422
    bad = send(client, "csv", ("f.csv", CSV), run={"sed": 1})
    assert bad.json()["errors"][0]["pointer"] == "/run/sed"


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("Loss/train", "train_loss"),
        ("train/epoch_loss", "train_loss"),
        ("eval_accuracy", "test_accuracy"),
        ("loss", "train_loss"),
        ("accuracy", "accuracy"),
        ("KL loss", "kl_loss"),
        ("train/lr", "train_lr"),
    ],
)
def test_names_of_other_tools(name: str, metric: str) -> None:
    assert metric_of(name) == metric
    assert place_of("Global Step".replace(" ", "_")) == "step"


def test_a_file_that_is_still_written_loses_only_its_last_record() -> None:
    content = events(Scalar("a", 1, 0.0, 1.0), Scalar("a", 2, 0.0, 2.0))
    assert [one.value for one in read_events(content[:-3])] == [1.0]
    damaged = bytearray(content)
    damaged[0] ^= 1
    with pytest.raises(EventFileError):
        list(read_events(bytes(damaged)))


def test_other_numbers_survive() -> None:
    wanted = [Scalar("tag/ü", 2**40, 1.5, -0.25), Scalar("b", 0, 2.5, math.inf)]
    assert list(read_events(events(*wanted))) == wanted


def test_tensorboard_reads_it_and_we_read_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "events.out.tfevents.1.x").write_bytes(events(Scalar("loss", 3, 7.0, 0.5)))
    read_back = accumulator.EventAccumulator(str(tmp_path))
    read_back.Reload()
    assert [(e.step, e.value, e.wall_time) for e in read_back.Scalars("loss")] == [(3, 0.5, 7.0)]


def test_one_file_is_one_run() -> None:
    with pytest.raises(ImportFailedError, match="one by one"):
        read("csv", [("a", CSV), ("b", CSV)], {}, None)
