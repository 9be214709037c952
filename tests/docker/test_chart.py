"""The Helm chart: it renders for many values, to what Kubernetes takes, and runs with little."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlhf_service.database import Database
from mlhf_service.migrate import migrate
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from tests.app.conftest import Rows
from tests.docker.tools import DOCKER
from tests.machine import BARE, postgresql_database

CHART = DOCKER / "helm" / "mlhf"
# Kinds of KEDA and of Prometheus' operator, whose schemas are not Kubernetes' own.
FOREIGN = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PodMonitor"}
# The oldest version the chart names, and a new one.
VERSIONS = ["1.27", "1.33"]
DIGEST = "sha256:" + "0" * 64

VALUES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "all that there is": {
        "image": {"registry": "registry.example/team", "pullSecrets": [{"name": "pull"}]},
        "artifacts": {"endpoint": "http://s3:8333"},
        "allowedHosts": ["mlhf.example.org"],
        "settings": {"MLHF_MAX_PARAMETERS": "5"},
        "datasets": {"existingClaim": "data"},
        "tracing": {"endpoint": "http://collector:4318"},
        "serviceAccount": {"annotations": {"role": "x"}},
        "api": {
            "digest": DIGEST,
            "ingress": {"enabled": True, "host": "mlhf.example.org", "tlsSecret": "tls"},
        },
        "workers": {"gpu": {"enabled": True, "nodeSelector": {"gpu": "yes"}}},
        "networkPolicy": {
            "apiFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
            "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
        },
        "serviceMonitor": {"enabled": True, "bearerToken": {"name": "scraper"}},
    },
    "without what scales and guards": {
        "keda": {"enabled": False},
        "api": {"autoscaling": {"enabled": False}},
        "networkPolicy": {"enabled": False},
        "secrets": {"s3Credentials": {"name": ""}},
    },
}


@pytest.fixture
def chart() -> Any:
    """Helm's own code, as a library."""
    if BARE:
        pytest.skip("helm is not to be used")
    return pytest.importorskip("helm_python.chart", reason="helm-python-sdk is not installed")


@pytest.fixture(params=sorted(VALUES))
def objects(request: pytest.FixtureRequest, chart: Any) -> list[dict[str, Any]]:
    """What one set of values renders to."""
    values = VALUES[request.param]
    loaded = chart.Chart.load(CHART)
    loaded.validate_schema(loaded.merge_values(values))
    rendered = loaded.render(values, name="rel", namespace="ns", is_install=True)
    texts = [text for path, text in rendered.items() if path.endswith(".yaml")]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in objects:
        if one["kind"] in ("Deployment", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def test_lint(chart: Any) -> None:
    found = chart.lint(CHART, strict=True)
    assert found["errors"] == []
    assert [m for m in found["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_them(objects: list[dict[str, Any]], version: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        validate = pytest.importorskip("kubernetes_validate").validate
    for one in objects:
        if one["kind"] not in FOREIGN:
            validate(one, version, strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)


def test_pods_run_with_little(objects: list[dict[str, Any]]) -> None:
    assert len(list(pods(objects))) >= 3
    for name, pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"], name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            assert not [
                v for v in container.get("env", []) if "URL" in v["name"] and "@" in v["value"]
            ]


def test_settings_are_ones_that_the_service_knows(objects: list[dict[str, Any]]) -> None:
    known = {f"MLHF_{name.upper()}" for name in Settings.model_fields} | {"MLHF_SECRETS_DIR"}
    for name, pod in pods(objects):
        for container in pod["containers"]:
            named = {v["name"] for v in container.get("env", []) if v["name"][:5] == "MLHF_"}
            assert named <= known, name


def test_whoever_is_stopped_has_time_and_says_whether_it_lives(
    objects: list[dict[str, Any]],
) -> None:
    for name, pod in pods(objects):
        (container,) = pod["containers"]
        if "-worker-" in name:
            grace = {v["name"]: v["value"] for v in container["env"]}["MLHF_GRACE_SECONDS"]
            assert pod["terminationGracePeriodSeconds"] >= float(grace) + 30
        if "migrate" not in name:
            assert {"startupProbe", "livenessProbe"} <= set(container)
    budgets = {o["metadata"]["name"] for o in objects if o["kind"] == "PodDisruptionBudget"}
    assert budgets == {o["metadata"]["name"] for o in objects if o["kind"] == "Deployment"}


def test_the_migration_comes_first(objects: list[dict[str, Any]]) -> None:
    (job,) = [one for one in objects if one["kind"] == "Job"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["migrate"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"graceSeconds": "soon"}, "graceSeconds"),
        ({"artifacts": {"url": "/a/folder"}}, "url"),
        ({"secrets": {"databaseUrl": {"name": ""}}}, "databaseUrl"),
        ({"settings": {"PATH": "x"}}, "PATH"),
        ({"api": {"digest": "latest"}}, "digest"),
        ({"worker": {}}, "worker"),
    ],
)
def test_wrong_values_are_named(chart: Any, values: dict[str, Any], said: str) -> None:
    loaded = chart.Chart.load(CHART)
    with pytest.raises(Exception, match=said):
        loaded.validate_schema(loaded.merge_values(values))


def test_workers_are_scaled_by_the_runs_that_wait_and_run(chart: Any, tmp_path: Path) -> None:
    rendered = chart.Chart.load(CHART).render({}, name="rel", namespace="ns")
    (scaled,) = [
        one
        for one in yaml.safe_load_all(rendered["mlhf/templates/workers.yaml"])
        if one and one["kind"] == "ScaledObject"
    ]
    (trigger,) = scaled["spec"]["triggers"]
    with postgresql_database() as url:
        database = Database(url)
        migrate(database)
        rows = Rows(database, FolderStorage(tmp_path))
        for status, later in (("queued", 0.0), ("running", 0.0), ("paused", 0.0), ("queued", 1e12)):
            rows.run(status=status, available_at=later)
        rows.run(status="queued", queue="gpu")
        with database.engine.connect() as connection:
            count = connection.exec_driver_sql(trigger["metadata"]["query"]).scalar()
        database.dispose()
    assert count == 2
