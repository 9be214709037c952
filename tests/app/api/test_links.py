"""Links of the OpenAPI document: they lead from a job to its run, and from there to its files."""

import re
from typing import Any

from fastapi.testclient import TestClient

from mlhf_service.api import links


def test_each_link_names_an_operation_and_its_parameters(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations: dict[str, tuple[str, dict[str, Any]]] = {
        operation["operationId"]: (path, operation)
        for path, methods in document["paths"].items()
        for operation in methods.values()
    }
    count = 0
    for _, operation in operations.values():
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                path, target = operations[link["operationId"]]
                assert set(link["parameters"]) == set(re.findall(r"{(\w+)}", path))
                given = {one["name"] for one in target["parameters"] if one["in"] == "path"}
                assert set(link["parameters"]) == given
                count += 1
    assert count == sum(len(targets) for _, _, targets, _ in links._LINKS)


def test_from_a_new_job_all_of_it_is_reached(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    linked: dict[str, set[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for response in operation["responses"].values():
                for link in response.get("links", {}).values():
                    linked.setdefault(operation["operationId"], set()).add(link["operationId"])
            if (method, path) == ("post", "/v1/jobs"):
                start = operation["operationId"]
    reached, found = {start}, [start]
    while found:
        new = linked.get(found.pop(), set()) - reached
        reached |= new
        found += new
    ids = {
        f"{method} {path}": operation["operationId"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    for wanted in (
        "get /v1/runs/{run_id}/curves",
        "get /v1/runs/{run_id}/artifacts/{name}",
        "delete /v1/runs/{run_id}",
        "post /v1/jobs/{job_id}/retry",
        "delete /v1/jobs/{job_id}",
    ):
        assert ids[wanted] in reached
