"""Commands that use a running service: submit, watch, compare, fetch, send."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlhf.data.formats import UploadFormat
from mlhf_service.cli import connection
from mlhf_service.cli.connection import DEFAULT_URL, AsJson, Key, Url, number

if TYPE_CHECKING:  # httpx is slow to import: --version and --help do without
    from mlhf_service.client import Client


def add_to(cli: typer.Typer) -> None:
    for command in (submit, watch, compare, ablation, download, export, upload):
        cli.command()(command)
    for action in ("cancel", "pause", "resume", "retry", "clone"):
        cli.command(action, help=f"{action.capitalize()} a job.")(_action(action))


def submit(
    spec: Annotated[
        Path, typer.Argument(help="A file with the job, JSON or YAML; - reads it from stdin.")
    ],
    url: Url = DEFAULT_URL,
    key: Key = None,
    check: Annotated[bool, typer.Option("--check", help="Validate only.")] = False,
    follow: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same one and body give the same job.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(min=-10, max=10, help="Instead of the file's.")
    ] = None,
    start_at: Annotated[
        str | None, typer.Option(help="Not to start before: 2027-01-31T08:00:00+01:00.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job. What is refused is shown with its line in the file."""
    from mlhf_service.client.job_files import parse_job, placed, read_job

    text, name = (sys.stdin.read(), "stdin") if str(spec) == "-" else (None, str(spec))
    body = parse_job(text, name) if text is not None else read_job(spec)
    wanted = {"priority": priority, "start_at": start_at}
    given = {field: value for field, value in wanted.items() if value is not None}
    with connection.connect(url, key) as client, placed(name, text):
        if check:
            connection.print_json(client.validate(body, **given))
            return
        job = client.submit(body, idempotency_key, **given)
        if follow:
            if not as_json:
                typer.echo(job["id"])
            _follow(client, job["id"], as_json)
        elif as_json:
            connection.print_json(job)
        else:
            typer.echo(job["id"])


def watch(job: str, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Follow a job to its end; exits with 1 unless it succeeded."""
    with connection.connect(url, key) as client:
        _follow(client, job, as_json)


def compare(
    run: Annotated[list[str] | None, typer.Argument(help="Ids of runs, or of one job.")] = None,
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
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs by samples and by seconds."""
    from mlhf_service.cli.tables import print_comparison

    chosen = [*(run or ()), *([job] if job else ())]
    if not chosen or (len(chosen) == 1 and not chosen[0].startswith("job_")):
        raise typer.BadParameter("give two runs or more, or a job")
    with connection.connect(url, key) as client:
        options = {"target": target, "metric": metric, "x": x}
        result = client.compare(chosen, **options)
        if figure is not None:
            kind = figure.suffix.lstrip(".") or "png"
            figure.write_bytes(client.figure(chosen, kind, **options))
    if as_json:
        connection.print_json(result)
    else:
        print_comparison(result)


def ablation(
    job: str,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write the table and the figure to.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show an ablation's results, a row for each solver variant; write its table and figure."""
    from mlhf_service.cli.tables import print_table

    with connection.connect(url, key) as client:
        found = client.ablation(job)
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            for kind in ("md", "csv", "png"):
                (output / f"ablation.{kind}").write_bytes(client.ablation_file(job, kind))
    if as_json:
        connection.print_json(found)
        return
    columns = ["task", "form", "seeds", "steps", "mean l_p", "of the longest", "mean ‖r‖/‖b‖"]
    rows = [
        [
            r["task"],
            r["form"],
            r["seeds"],
            r["steps"],
            *(number(r[name]["mean"]) for name in ("l_p", "part", "residual")),
        ]
        for r in found["rows"]
    ]
    print_table(columns, rows)


def download(
    run: str,
    output: Annotated[Path, typer.Option(help="Folder to write to.")] = Path(),
    name: Annotated[list[str] | None, typer.Option(help="Only these artifacts.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Download a run's artifacts (without its checkpoints, unless named)."""
    with connection.connect(url, key) as client:
        wanted = name or [a["name"] for a in client.artifacts(run) if a["kind"] != "checkpoint"]
        written = []
        for one in wanted:
            written.append(str(client.download(run, one, output / one)))
            if not as_json:
                typer.echo(written[-1])
    if as_json:
        connection.print_json(written)


def export(
    run: str,
    target: Annotated[Path, typer.Argument(help="A file ending in .onnx or .pt2.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's trained network for other programs: ONNX, or torch.export's format."""
    with connection.connect(url, key) as client:
        written = str(client.export(run, target))
    if as_json:
        connection.print_json(written)
    else:
        typer.echo(written)


def upload(
    file: list[Path],
    name: Annotated[str | None, typer.Option(help="A name for it; the file's if absent.")] = None,
    format: Annotated[
        UploadFormat | None, typer.Option(help="By the file's name if absent.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            help="NAME=VALUE of the format, such as target=species; `mlhf formats table` lists "
            "those of a format.",
        ),
    ] = None,
    params: Annotated[str, typer.Option(help="All parameters as JSON.")] = "{}",
    target: Annotated[
        str | None, typer.Option(help="The column to predict, of a table; as -p target=….")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload a data set, and show what was understood of it."""
    from mlhf_service.cli.live import uploading
    from mlhf_service.cli.tables import print_dataset
    from mlhf_service.client.uploads import files_of, format_of, name_of

    files = files_of(file, Path())
    kind = format or format_of(files)
    wanted = {**_json_object("--params", params), **_pairs("--param", param or [])}
    if target is not None:
        wanted["target"] = target
    with connection.connect(url, key) as client, uploading() as on_progress, _hinted(kind):
        made = client.upload_files(name or name_of(file, files), kind, files, wanted, on_progress)
    if as_json:
        connection.print_json(made)
    else:
        print_dataset(made)


@contextmanager
def _hinted(format: str) -> Iterator[None]:
    """Say where parameters of a format are listed, if one of them was refused."""
    from mlhf_service.client import ServiceError

    try:
        yield
    except ServiceError as error:
        if any(pointer.startswith("/params") for pointer in error.pointers):
            raise ServiceError(
                f"{error}. Give it as --param NAME=VALUE; `mlhf formats {format}` "
                "lists what there is",
                error.status,
            ) from None
        raise


def _json_object(option: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise typer.BadParameter(f'{option} must be a JSON object, such as {{"target": "y"}}')
    return found


def _pairs(option: str, pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE, each value as JSON where it is some, else as text."""
    found = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not (name and sign):
            raise typer.BadParameter(f"{option} {pair!r}: write NAME=VALUE")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _action(action: str) -> Any:
    def command(job: str, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
        with connection.connect(url, key) as client:
            result = client.act(job, action)
        if as_json:
            connection.print_json(result)
        else:
            typer.echo(f"{result['id']} {result['status']}")

    return command


def _follow(client: "Client", job_id: str, as_json: bool) -> None:
    from mlhf_service.cli.live import follow

    job = follow(client, job_id)
    if as_json:
        connection.print_json(job)
    if job["status"] != "succeeded":
        raise typer.Exit(1)
