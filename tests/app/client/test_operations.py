"""What the client asks, how often, and what it makes of the answers."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlhf_service.client import ServiceError, WaitTimeoutError
from mlhf_service.client.specs import specification
from mlhf_service.client.tables import Comparison, Curves
from tests.app.client.transports import async_client_of, client_of


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("asyncio.sleep", at_once)


def job(status: str = "running", **fields: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("queued", "running", "paused", "succeeded", "failed", "cancelled"), 0)
    return {
        "id": "job_1",
        "name": "a job",
        "status": status,
        "run_ids": ["run_1"],
        "runs": {**counts, status: 1},
        "progress": {"fraction": 0.25, "eta_seconds": 3.0},
        "error": None,
        **fields,
    }


def test_importing_it_imports_nothing_of_the_service() -> None:
    code = (
        "import sys, mlhf_service.client\n"
        "heavy = {'fastapi', 'starlette', 'sqlalchemy', 'celery', 'torch', 'pandas', 'numpy',"
        " 'matplotlib', 'uvicorn', 'typer'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_refusal_says_status_type_and_pointers() -> None:
    problem = {
        "type": "/problems/invalid",
        "title": "Invalid",
        "status": 422,
        "detail": "unknown optimizer 'admaw'",
        "errors": [{"pointer": "/optimizer/name", "detail": "unknown optimizer 'admaw'"}],
    }
    client, _ = client_of(httpx.Response(422, json=problem))
    with pytest.raises(ServiceError, match="at /optimizer/name") as caught:
        client.submit(model="mlp", dataset="digits", optimizer="admaw", epochs=1)
    error = caught.value
    assert (error.status, error.type, error.title) == (422, "/problems/invalid", "Invalid")
    assert error.pointers == ["/optimizer/name"]


def test_a_job_that_is_sent_again_is_sent_with_the_same_key() -> None:
    answers = [httpx.ReadError("lost"), httpx.Response(503), httpx.Response(201, json=job())]
    client, asked = client_of(*answers)
    assert client.submit({"kind": "train"}).id == "job_1"
    keys = {request.headers["idempotency-key"] for request in asked}
    assert (len(asked), len(keys)) == (3, 1)


def test_what_may_do_harm_twice_is_sent_once() -> None:
    client, asked = client_of(httpx.Response(503, json={"title": "away"}))
    with pytest.raises(ServiceError) as caught:
        client.cancel("job_1")
    assert (caught.value.status, len(asked)) == (503, 1)


def test_a_timeout_names_what_was_waited_for() -> None:
    client, _ = client_of(*[httpx.ReadTimeout("slow")] * 3)
    with pytest.raises(WaitTimeoutError, match=r"to GET /v1/jobs/job_1 within 5 s"):
        client.job("job_1")
    client, _ = client_of(httpx.Response(200, json=job("queued", waiting="No worker is alive.")))
    with pytest.raises(TimeoutError, match=r"still queued \(No worker is alive.\) after 0 s, 25%"):
        client.wait("job_1", timeout=0)


def test_lists_are_read_page_by_page() -> None:
    def page(*names: str, following: str | None) -> httpx.Response:
        return httpx.Response(
            200, json={"data": [{"id": n} for n in names], "next_cursor": following}
        )

    client, asked = client_of(page("a", "b", following="c1"), page("c", following=None))
    assert [run.id for run in client.runs("job_1", status="failed")] == ["a", "b", "c"]
    assert dict(asked[1].url.params) == {
        "limit": "500",
        "cursor": "c1",
        "job_id": "job_1",
        "status": "failed",
    }
    client, asked = client_of(page("a", "b", following="c1"))
    assert [run.id for run in client.runs(limit=2)] == ["a", "b"]

    async def read() -> list[str]:
        other, _ = async_client_of(page("a", following="c1"), page("b", following=None))
        return [run.id async for run in other.runs()]

    assert asyncio.run(read()) == ["a", "b"]


def test_the_bar_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    failed = job("failed", error={"title": "Diverged", "detail": "not finite"})
    client, _ = client_of(httpx.Response(200, json=job()), httpx.Response(200, json=failed))
    assert client.watch("job_1").ended
    shown = capsys.readouterr().err
    assert "failed, 1 of 1 runs" in shown
    assert "failed: not finite" in shown


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_job_is_an_object_keywords_or_a_file(tmp_path: Path, suffix: str) -> None:
    if suffix == "yaml":
        pytest.importorskip("yaml")
    path = tmp_path / f"job.{suffix}"
    path.write_text(json.dumps({"model": {"name": "mlp"}, "batch_size": 8}))
    made = specification(path, {"dataset": {"id": "ds_1"}, "optimizers": ["adam"], "epochs": 2})
    assert made == {
        "kind": "sweep",
        "model": {"name": "mlp"},
        "batch_size": 8,
        "dataset": {"name": "ds_1"},
        "optimizers": [{"name": "adam"}],
        "budget": {"epochs": 2},
    }
    path.write_text("[1]")
    with pytest.raises(ServiceError, match="holds no job"):
        specification(path, {})


def test_what_is_no_file_of_a_data_set_is_said(tmp_path: Path) -> None:
    client, _ = client_of()
    with pytest.raises(ServiceError, match="is no file"):
        client.upload(tmp_path / "absent.csv")
    with pytest.raises(ServiceError, match="upload a zip"):
        client.upload(tmp_path)
    (tmp_path / "data.dat").write_text("1")
    with pytest.raises(ServiceError, match="does not tell the format"):
        client.upload(tmp_path / "data.dat")


def test_a_data_frame_is_uploaded_as_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    client, asked = client_of(httpx.Response(201, json={"id": "ds_1", "name": "t"}))
    client.upload(pandas.DataFrame({"x": [1.5, 2.5], "y": ["a", "b"]}), name="t", target="y")
    body = asked[0].read()
    assert b'{"target": "y"}' in body
    assert b"PAR1" in body or b"1.5,a" in body


CURVES = {
    "run_id": "run_1",
    "x": "samples",
    "series": [
        {"metric": "train_loss", "points": [[0, 2.5], [64, "NaN"]]},
        {"metric": "batch_loss", "points": [[64, 1.0]]},
    ],
}


def test_curves_are_arrays_or_a_table() -> None:
    np = pytest.importorskip("numpy")
    curves = Curves(CURVES)
    x, y = curves["train_loss"]
    assert x.tolist() == [0, 64]
    assert np.array_equal(y, [2.5, np.nan], equal_nan=True)
    pytest.importorskip("pandas")
    table = curves.to_pandas()
    assert table.index.tolist() == [0, 64]
    assert table["batch_loss"].isna().tolist() == [True, False]


SECONDS = ("wall_seconds", "cpu_seconds")


def band(mean: float | None, std: float | None = None) -> dict[str, Any]:
    return {"n": 2, "mean": mean, "std": std, "min": mean, "max": mean}


def compared(label: str, loss: float) -> dict[str, Any]:
    reach = {name: band(640.0) for name in ("steps", "samples", "wall_seconds", "cpu_seconds")}
    return {
        "label": label,
        "n": 2,
        "final_loss": band(loss, 0.01),
        "final_accuracy": band(0.9),
        "to_target": {"reached": 2, "missed": 0, "unfinished": 0, **reach},
        "curve": {
            **{axis: [0, 1] for axis in ("samples", "steps", "epochs", *SECONDS)},
            **{name: [2.0, loss] for name in ("mean", "min", "max")},
        },
    }


def comparison() -> Comparison:
    return Comparison(
        metric="train_loss",
        loss_metric="train_loss",
        accuracy_metric="test_accuracy",
        target=0.2,
        runs=[{"model": "mlp", "dataset_name": "flowers"}] * 2,
        groups=[compared("adam", 0.2), compared("<hf>", 0.1)],
        warnings=[{"message": "few seeds"}],
    )


def test_a_comparison_prints_and_shows_in_a_notebook() -> None:
    text = repr(comparison())
    assert "adam" in text
    assert "0.1 ± 0.01" in text
    assert "640" in text
    assert "! few seeds" in text
    html = comparison()._repr_html_()
    assert "&lt;hf&gt;" in html
    assert "<b>0.1 ± 0.01</b>" in html
    assert "<b>0.2" not in html


def test_a_comparison_is_a_table_and_a_figure() -> None:
    pytest.importorskip("pandas")
    table = comparison().to_pandas()
    assert table["final_train_loss"].tolist() == [0.2, 0.1]
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = comparison().plot("wall_seconds")
    assert [line.get_label() for line in axes.lines[:2]] == ["adam", "<hf>"]
    assert axes.get_title() == "train loss: mlp on flowers"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("training time (s)", "train loss")
    with pytest.raises(ValueError, match="no axis; there are samples"):
        comparison().plot("minutes")
