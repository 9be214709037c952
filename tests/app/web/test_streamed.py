"""Large pages: their beginning is sent before their end is made, and numbers are short."""

import math

import pytest
from fastapi.testclient import TestClient

from mlhf_service.web import charts, rendering, run_table
from tests.app.conftest import Rows


def test_pieces_hold_everything_and_come_before_the_end_is_made() -> None:
    made: list[int] = []

    def parts():
        for number in range(10):
            made.append(number)
            yield f"{number}" * (rendering._PIECE // 2)

    pieces = rendering._pieces(parts())
    first = next(pieces)
    assert made == [0, 1], "the rest is still to be made"
    assert first + "".join(pieces) == "".join(parts())
    assert "".join(rendering._pieces(iter(["short"]))) == "short"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_rows_are_made_one_by_one(
    client: TestClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "_PIECE", 500)
    job = rows.job()
    runs = [rows.run(job, position=place, name=f"run number {place}") for place in range(5)]
    answer = client.get("/runs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert "content-length" not in answer.headers
    assert answer.text.rstrip().endswith("</html>")
    assert all(answer.text.count(f'id="choose-{run}"') == 1 for run in runs)
    assert client.get("/runs?filter=odd(").status_code == 422
    rest = run_table._rows([], ["status"], {})
    assert next(rest, None) is None


def test_numbers_of_charts_are_right_to_six_digits() -> None:
    values = [0.0, -0.0, 1 / 3, -2 / 3, 123456.789, 9.87654321e12, 1.23456789e-11, 5e-324, 64.0]
    short = charts._short([*values, None, math.nan])
    assert short[-2:] == [None, None]
    for value, found in zip(values, short, strict=False):
        assert found == pytest.approx(value, rel=5e-6, abs=1e-22)
    assert short[2] == 0.333333
    assert len(repr(short[3])) == len("-0.666667")
    assert charts._short([]) == []
