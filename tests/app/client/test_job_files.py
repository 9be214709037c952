"""Jobs in YAML and JSON files, and the lines of what is wrong in them."""

from pathlib import Path

import httpx
import pytest

from mlhf_service.client import ServiceError
from mlhf_service.client.job_files import parse_job, placed, read_job
from tests.app.client.transports import client_of

JOB = """\
# how one is written by hand
kind: train
optimizer: {name: adam, params: {lr: 1e-3, beta1: 0.9}}
budget:
  epochs: 2
start_at: 2027-01-31T08:00:00+01:00
tags: {on: yes}
"""


def test_yaml_is_read_as_json_would_be(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    job = read_job(path)
    assert job["optimizer"]["params"] == {"lr": 0.001, "beta1": 0.9}
    assert job["start_at"] == "2027-01-31T08:00:00+01:00", "no date of Python's"
    assert parse_job('{"kind": "train", "lr": 1e-3}', "stdin") == {"kind": "train", "lr": 0.001}
    assert parse_job("kind: train\nlr: 1E+3", "stdin") == {"kind": "train", "lr": 1000.0}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("job.yaml", "kind: train\n  seed: 1", "job.yaml: line 2, column 7"),
        ("job.yaml", "kind: train\nseed: 1\nseed: 2", "line 3: 'seed' is given twice"),
        ("job.yaml", "a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("job.yaml", "- kind: train", "it must be one object"),
        ("job.yaml", "value: .nan", "not JSON compliant"),
        ("job.yaml", "a: &a [*a]", "Circular reference"),
        ("job.json", '{"kind": "train",\n "seed" 1}', "job.json, line 2, column 9"),
        ("job.json", '{"seed": 1, "seed": 2}', "'seed' is given twice"),
        ("job.json", "[" * 100_000, "cannot read a job from"),
    ],
)
def test_what_cannot_be_read_says_where(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ServiceError) as caught:
        read_job(path)
    assert said in str(caught.value).replace(f"{tmp_path}/", "")


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="No such file"):
        read_job(tmp_path / "job.yaml")
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ServiceError, match="no text in UTF-8"):
        read_job(tmp_path / "job.yaml")


def test_a_refused_value_is_shown_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    problem = {
        "type": "/problems/invalid",
        "detail": "two things",
        "errors": [
            {"pointer": "/optimizer/params/lr", "detail": "must be less"},
            {"pointer": "/budget/epochs", "detail": "must be more"},
            {"pointer": "/model", "detail": "is missing"},
        ],
    }
    client, _ = client_of(httpx.Response(422, json=problem))
    with pytest.raises(ServiceError) as caught:
        client.submit(path)
    assert str(caught.value).replace(f"{tmp_path}/", "").split("\n      ") == [
        "job.yaml, line 3, optimizer.params.lr: must be less",
        "job.yaml, line 5, budget.epochs: must be more",
        "job.yaml, line 2, model: is missing",
    ]
    assert caught.value.status == 422
    assert caught.value.pointers == ["/optimizer/params/lr", "/budget/epochs", "/model"]


def test_what_is_no_file_has_no_lines() -> None:
    refused = ServiceError("no", 422, {"errors": [{"pointer": "/kind", "detail": "no"}]})
    with pytest.raises(ServiceError) as caught, placed({"kind": "x"}):
        raise refused
    assert caught.value is refused
