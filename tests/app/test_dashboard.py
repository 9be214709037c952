"""The Grafana dashboard asks for nothing that the service does not export."""

import json
import re
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from mlhf_service import measures

DASHBOARD = json.loads(
    (Path(__file__).parents[2] / "docker" / "grafana" / "dashboard.json").read_text()
)


def exported(client: TestClient) -> dict[str, set[str]]:
    """Every series of the service by its name, with the labels that its samples may have."""
    found: dict[str, set[str]] = {}
    families = [*text_string_to_metric_families(client.get("/metrics").text)]
    for family in [*families, *measures._OWN.collect()]:
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        for end in ends.get(family.type, ("",)):
            found.setdefault(family.name + end, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> list[str]:
    targets: list[dict[str, Any]] = [t for p in DASHBOARD["panels"] for t in p["targets"]]
    return [target["expr"] for target in targets]


def test_every_metric_exists(client: TestClient) -> None:
    known = exported(client)
    asked = {name for text in expressions() for name in re.findall(r"\bmlhf_\w+", text)}
    assert asked
    assert asked <= set(known), asked - set(known)


def test_every_metric_is_shown(client: TestClient) -> None:
    shown = " ".join(expressions())
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in exported(client)}
    missing = {name for name in families if name.startswith("mlhf_") and name not in shown}
    assert not {name for name in missing if not name.endswith("_created")}


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for p in places
        for x in range(p["x"], p["x"] + p["w"])
        for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(p["x"] + p["w"] <= 24 for p in places)
