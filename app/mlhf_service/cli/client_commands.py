"""Commands that use a running service."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlhf.data.formats import UploadFormat

if TYPE_CHECKING:  # httpx is slow to import: --version and --help do without
    from mlhf_service.client import Client

Url = Annotated[
    str, typer.Option("--url", envvar="MLHF_URL", help="The service's address.", show_default=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_URL = "http://127.0.0.1:8000"


def add_to(cli: typer.Typer) -> None:
    for command in (submit, jobs, watch, runs, compare, ablation, download, upload, datasets):
        cli.command()(command)
    cli.command("meta-checkpoints")(meta_checkpoints)
    for action in ("cancel", "pause", "resume", "retry", "clone"):
        cli.command(action, help=f"{action.capitalize()} a job.")(_action(action))


def submit(
    spec: Annotated[Path, typer.Argument(help="A JSON file with the job; - reads it from stdin.")],
    url: Url = DEFAULT_URL,
    check: Annotated[bool, typer.Option("--check", help="Validate only.")] = False,
    follow: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    key: Annotated[str | None, typer.Option(help="Idempotency key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job."""
    from mlhf_service.client import ServiceError

    try:
        text = sys.stdin.read() if str(spec) == "-" else spec.read_text(encoding="utf-8")
        body = json.loads(text)
    except (OSError, ValueError) as error:
        raise ServiceError(f"cannot read a job from {spec}: {error}") from None
    with _connect(url) as client:
        if check:
            typer.echo(json.dumps(client.validate(body), indent=2))
            return
        job = client.submit(body, key)
        typer.echo(json.dumps(job, indent=2) if as_json else job["id"])
        if follow:
            _follow(client, job["id"])


def jobs(
    url: Url = DEFAULT_URL,
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    with _connect(url) as client:
        found = client.find("jobs", limit, status=status)
    rows = [
        [j["id"], j["status"], f"{j['progress']['fraction']:.0%}", len(j["run_ids"]), j["name"]]
        for j in found
    ]
    _show(found, as_json, ["job", "status", "done", "runs", "name"], rows)


def runs(
    url: Url = DEFAULT_URL,
    job: Annotated[str | None, typer.Option(help="Only runs of this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs with what they reached."""
    with _connect(url) as client:
        found = client.find("runs", limit, job_id=job)
    rows = [
        [
            r["id"],
            r["status"],
            r["name"],
            _number(_last(r, "train_loss")),
            _number(_last(r, "test_accuracy")),
        ]
        for r in found
    ]
    _show(found, as_json, ["run", "status", "name", "train loss", "test accuracy"], rows)


def watch(job: str, url: Url = DEFAULT_URL) -> None:
    """Follow a job to its end."""
    with _connect(url) as client:
        _follow(client, job)


def compare(
    run: Annotated[list[str] | None, typer.Argument(help="Runs to compare.")] = None,
    job: Annotated[str | None, typer.Option(help="Compare all runs of this job.")] = None,
    target: Annotated[float | None, typer.Option(help="Loss or accuracy to reach.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="What to compare, such as test_accuracy.")
    ] = None,
    x: Annotated[
        str | None,
        typer.Option(
            help="The figure's axis: samples, steps, epochs, wall_seconds or cpu_seconds. "
            "By samples and by wall_seconds when absent."
        ),
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Write a .png, .svg or .csv here.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Compare runs by samples and by seconds."""
    from mlhf_service.cli.tables import print_comparison

    with _connect(url) as client:
        chosen = run or (client.job(job)["run_ids"] if job else [])
        options = {"target": target, "metric": metric, "x": x}
        result = client.compare(chosen, **options)
        if figure is not None:
            kind = figure.suffix.lstrip(".") or "png"
            figure.write_bytes(client.figure(chosen, kind, **options))
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_comparison(result)


def ablation(
    job: str,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write the table and the figure to.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show an ablation's results, a row for each solver variant; write its table and figure."""
    from mlhf_service.cli.tables import print_table

    with _connect(url) as client:
        found = client.ablation(job)
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            for kind in ("md", "csv", "png"):
                (output / f"ablation.{kind}").write_bytes(client.ablation_file(job, kind))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    columns = ["task", "form", "seeds", "steps", "mean l_p", "of the longest", "mean ‖r‖/‖b‖"]
    rows = [
        [
            r["task"],
            r["form"],
            r["seeds"],
            r["steps"],
            *(_number(r[name]["mean"]) for name in ("l_p", "part", "residual")),
        ]
        for r in found["rows"]
    ]
    print_table(columns, rows)


def download(
    run: str,
    output: Annotated[Path, typer.Option(help="Folder to write to.")] = Path(),
    name: Annotated[list[str] | None, typer.Option(help="Only these artifacts.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Download a run's artifacts (without its checkpoints, unless named)."""
    with _connect(url) as client:
        known = client.get(f"/v1/runs/{run}/artifacts")["data"]
        wanted = name or [a["name"] for a in known if a["kind"] != "checkpoint"]
        for one in wanted:
            typer.echo(client.download(run, one, output / one))


def datasets(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List data sets, built in and uploaded."""
    with _connect(url) as client:
        found = client.get("/v1/datasets")["data"]
    rows = [[d.get("id") or d["name"], d["name"], d.get("description") or ""] for d in found]
    _show(found, as_json, ["id", "name", "description"], rows)


def upload(
    file: list[Path],
    name: Annotated[str, typer.Option(help="A name for it.")],
    format: Annotated[UploadFormat, typer.Option()],
    params: Annotated[str, typer.Option(help="Parameters as JSON.")] = "{}",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Upload a data set, and show what was understood of it."""
    from mlhf_service.cli.live import uploading
    from mlhf_service.client import ServiceError

    try:
        parsed = json.loads(params)
        with _connect(url) as client, uploading() as on_progress:
            made = client.upload(name, format, file, parsed, on_progress)
    except (OSError, ValueError) as error:
        raise ServiceError(str(error)) from None
    if as_json:
        typer.echo(json.dumps(made, indent=2))
    else:
        from mlhf_service.cli.tables import print_dataset

        print_dataset(made)


def meta_checkpoints(
    url: Url = DEFAULT_URL,
    optimizer: Annotated[
        str | None, typer.Option(help="Only those for mlhf, mlhf_paper, or l2l.")
    ] = None,
    fetch: Annotated[str | None, typer.Option("--download", help="Download this one.")] = None,
    output: Annotated[Path, typer.Option(help="Folder to write to.")] = Path(),
    add: Annotated[Path | None, typer.Option("--upload", help="Upload a .safetensors.")] = None,
    name: Annotated[str, typer.Option(help="Name of what is uploaded.")] = "uploaded",
    as_json: AsJson = False,
) -> None:
    """List what learned optimizers can use; download or upload one."""
    with _connect(url) as client:
        if fetch is not None:
            target = output / f"{fetch}.safetensors"
            typer.echo(client.download_file(f"/v1/meta-checkpoints/{fetch}/file", target))
            return
        if add is not None:
            typer.echo(json.dumps(client.upload_meta_checkpoint(name, add), indent=2))
            return
        found = client.find("meta-checkpoints", 500, optimizer=optimizer)
    rows = [
        [m["id"], m["optimizer"], ", ".join(m["aliases"]), m["used_by"], m["name"]] for m in found
    ]
    _show(found, as_json, ["id", "optimizer", "aliases", "runs", "name"], rows)


def _action(action: str) -> Any:
    def command(job: str, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
        with _connect(url) as client:
            result = client.act(job, action)
        typer.echo(
            json.dumps(result, indent=2) if as_json else f"{result['id']} {result['status']}"
        )

    return command


def _connect(url: str) -> "Client":
    from mlhf_service.client import Client

    return Client(url)


def _follow(client: "Client", job_id: str) -> None:
    from mlhf_service.cli.live import follow

    if follow(client, job_id)["status"] != "succeeded":
        raise typer.Exit(1)


def _show(found: list[Any], as_json: bool, columns: list[str], rows: list[list[Any]]) -> None:
    from mlhf_service.cli.tables import print_table

    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_table(columns, rows)


def _last(run: dict[str, Any], metric: str) -> Any:
    if run.get("diverged_at"):
        return "diverged"
    return ((run.get("summary") or {}).get(metric) or {}).get("last")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value or "–")
