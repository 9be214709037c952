"""A small stand-in for MLflow's REST API, as strict as the real one where we use it."""

import json
import re
from typing import Any

import httpx


class MlflowServer:
    """Answers as MLflow does; ``runs`` and ``experiments`` hold what was written."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.batches = 0

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/2.0/mlflow/")
        body = json.loads(request.content) if request.content else dict(request.url.params)
        handle = getattr(self, "_" + re.sub(r"\W", "_", path), None)
        if handle is None:
            return httpx.Response(404, json={"error_code": "ENDPOINT_NOT_FOUND", "message": path})
        try:
            return httpx.Response(200, json=handle(body))
        except LookupError as error:
            problem = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": str(error)}
            return httpx.Response(404, json=problem)
        except ValueError as error:
            problem = {"error_code": "INVALID_PARAMETER_VALUE", "message": str(error)}
            return httpx.Response(400, json=problem)

    def _experiments_get_by_name(self, body: Any) -> Any:
        name = body["experiment_name"]
        if name not in self.experiments:
            raise LookupError(f"Could not find experiment with name '{name}'")
        return {"experiment": {"experiment_id": self.experiments[name], "name": name}}

    def _experiments_create(self, body: Any) -> Any:
        self.experiments[body["name"]] = str(len(self.experiments) + 1)
        return {"experiment_id": self.experiments[body["name"]]}

    def _runs_search(self, body: Any) -> Any:
        wanted = re.fullmatch(r"tags\.`([^`]+)` = '([^']+)'", body["filter"])
        if wanted is None:
            raise ValueError(f"Invalid filter {body['filter']}")
        found = [
            run
            for run in self.runs.values()
            if run["info"]["experiment_id"] in body["experiment_ids"]
            and {"key": wanted[1], "value": wanted[2]} in run["data"]["tags"]
        ]
        return {"runs": found[: body["max_results"]]} if found else {}

    def _runs_create(self, body: Any) -> Any:
        run_id = f"{len(self.runs):032x}"
        info = {"run_id": run_id, "experiment_id": body["experiment_id"], "status": "RUNNING"}
        info |= {"run_name": body["run_name"], "start_time": body["start_time"]}
        data = {"tags": body["tags"], "params": [], "metrics": []}
        self.runs[run_id] = {"info": info, "data": data}
        return {"run": self.runs[run_id]}

    def _runs_log_batch(self, body: Any) -> Any:
        self.batches += 1
        data = self.runs[body["run_id"]]["data"]
        parts = [body.get(name, []) for name in ("metrics", "params", "tags")]
        if len(parts[0]) > 1000 or len(parts[1]) > 100 or sum(map(len, parts)) > 1000:
            raise ValueError("A batch logging request can contain at most 1000 entities")
        for metric in parts[0]:
            if not isinstance(metric["timestamp"], int) or not isinstance(metric["step"], int):
                raise ValueError(f"Invalid value for {metric}")
            float(metric["value"])
        known = {one["key"]: one["value"] for one in data["params"]}
        for param in parts[1]:
            if known.get(param["key"], param["value"]) != param["value"]:
                raise ValueError("Changing param values is not allowed")
            if not re.fullmatch(r"[\w\-. /:]+", param["key"]):
                raise ValueError(f"Invalid parameter name {param['key']!r}")
        data["metrics"] += parts[0]
        data["params"] += parts[1]
        replaced = {tag["key"] for tag in parts[2]}
        data["tags"] = [tag for tag in data["tags"] if tag["key"] not in replaced] + parts[2]
        return {}

    def _runs_update(self, body: Any) -> Any:
        info = self.runs[body["run_id"]]["info"]
        info |= {name: body[name] for name in ("status", "end_time") if name in body}
        return {"run_info": info}
