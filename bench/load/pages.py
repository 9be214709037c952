"""First useful paint of the pages that are largest: 1,000 runs in a list, 100 in a comparison.

    python -m bench.load.pages [--runs 1000] [--compared 100] [--steps 5000] [--times 5]

Prints for each page the milliseconds of this process's CPU that it takes to make, its size, and,
where Chromium and Playwright are at hand, when a browser that has nothing in its cache first
shows content, when all is drawn, and the CPU time of the page's own thread; medians of so many
loads.
"""

import argparse
import gzip
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mlhf_service.database import Database, now
from mlhf_service.jobs.models import Job
from mlhf_service.kit.ids import new_id
from mlhf_service.main import create_app
from mlhf_service.migrate import migrate
from mlhf_service.runs import chunks
from mlhf_service.runs.blocks import Block
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings

EVALUATIONS = 100  # of each run
METRICS = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
_PAINTED = """() => {
  const drawn = performance.now();
  return new Promise((done) => new PerformanceObserver((list) => {
    const first = list.getEntriesByName("first-contentful-paint")[0];
    if (first) done({ content: first.startTime, now: drawn });
  }).observe({ type: "paint", buffered: true }));
}"""


def fill(
    database: Database, runs: int, steps: int, with_curves: int, evaluations: int
) -> list[str]:
    """Make ended runs of one sweep, the first with curves; returns the ids of all."""
    chance = np.random.default_rng(0)
    began = now() - timedelta(days=1)
    job = Job(
        id=new_id("job"),
        kind="sweep",
        name="a sweep",
        status="succeeded",
        spec={},
        created_at=began,
    )
    made: list[str] = []
    with database.write() as session:
        session.add(job)
        session.flush()
        for place in range(runs):
            params = {"lr": 10 ** chance.uniform(-4, -1), "beta1": 0.9, "weight_decay": 0.0}
            optimizer = ("adam", "momentum", "hf_adam")[place % 3]
            loss, accuracy = chance.uniform(0.05, 0.9), chance.uniform(0.5, 0.99)
            run = Run(
                id=new_id("run"),
                job_id=job.id,
                position=place,
                name=f"a sweep: {optimizer} seed {place % 5}",
                status="succeeded",
                config={
                    "model": {"name": "mlp", "params": {"hidden": [64, 32]}},
                    "dataset": {"name": "digits", "params": {}},
                    "optimizer": {"name": optimizer, "params": params},
                    "budget": {"epochs": 10.0},
                    "batch_size": 64,
                    "seed": place % 5,
                    "device": "cpu",
                },
                model="mlp",
                dataset="digits",
                optimizer=optimizer,
                seed=place % 5,
                queue="cpu",
                attempt=1,
                summary={
                    name: {"last": value, "best": value, "best_step": steps}
                    for name, value in zip(METRICS, (loss, loss, accuracy, accuracy), strict=True)
                },
                totals={
                    "steps": steps,
                    "wall_seconds": 12.5,
                    "samples": 64 * steps,
                    "epochs": 10.0,
                },
                created_at=began + timedelta(seconds=place),
            )
            session.add(run)
            made.append(run.id)
    for run_id in made[:with_curves]:
        with database.write() as session:
            chunks.append(session, run_id, 1, _curve(chance, steps, evaluations))
    return made


def _curve(chance: np.random.Generator, steps: int, evaluations: int) -> Block:
    every = max(1, steps // evaluations)
    walk = np.exp(-np.linspace(0, 3, steps + 1)) + 0.02 * chance.random(steps + 1)
    points = []
    for step in range(steps + 1):
        values = {"batch_loss": float(walk[step])}
        if step % every == 0:
            values |= {name: float(walk[step]) for name in METRICS}
        points.append(
            {
                "step": step,
                "samples": 64 * step,
                "epoch": step / 100,
                "wall_seconds": 0.0025 * step,
                "cpu_seconds": 0.0025 * step,
                "values": values,
            }
        )
    return Block.of_points(points)


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of the application on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def made(app: FastAPI, pages: dict[str, str], times: int) -> None:
    """Print what the pages cost to make."""
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for name, path in pages.items():
            used = []
            for _ in range(times + 1):
                before = time.process_time()
                answer = client.get(path)
                used.append(1000 * (time.process_time() - before))
            assert answer.status_code == 200, answer.text[:500]
            size, sent = (
                len(one) / 2**10 for one in (answer.content, gzip.compress(answer.content, 5))
            )
            cpu = statistics.median(used[1:])
            print(
                f"{name:28} {cpu:7.0f} ms CPU, {size:7.0f} KiB of HTML, {sent:.0f} KiB gzipped",
                flush=True,
            )


def painted(app: FastAPI, pages: dict[str, str], times: int) -> None:
    """Print when a browser shows the pages."""
    path = shutil.which("chromium")
    if path is None:
        print("no chromium here: nothing was painted")
        return
    from playwright.sync_api import sync_playwright

    with served(app) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name, address in pages.items():
            found: list[dict[str, float]] = []
            for _ in range(times + 1):
                context = browser.new_context(viewport={"width": 1280, "height": 900})
                page = context.new_page()
                tools = context.new_cdp_session(page)
                tools.send("Performance.enable", {"timeDomain": "threadTicks"})
                page.goto(url + address, wait_until="load")
                if "compare" in address:
                    page.wait_for_selector("#by-seconds canvas")
                shown: dict[str, float] = page.evaluate(_PAINTED)
                told = {
                    m["name"]: m["value"] for m in tools.send("Performance.getMetrics")["metrics"]
                }
                found.append({**shown, "cpu": 1000 * told["TaskDuration"]})
                context.close()
            content, drawn, cpu = (
                statistics.median(one[key] for one in found[1:])
                for key in ("content", "now", "cpu")
            )
            print(
                f"{name:28} first content {content:5.0f} ms, all drawn {drawn:5.0f} ms; "
                f"the page's thread {cpu:4.0f} ms CPU",
                flush=True,
            )
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--compared", type=int, default=100)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--no-browser", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(_env_file=None, data_dir=folder)
        database = Database(settings.database)
        migrate(database)
        runs = fill(database, options.runs, options.steps, options.compared, options.evaluations)
        chosen = "&".join(f"run={run}" for run in runs[: options.compared])
        pages = {
            "a small page": "/optimizers",
            f"{options.runs} runs in a list": f"/runs?limit={options.runs}",
            f"{options.compared} runs compared": f"/compare?{chosen}",
        }
        app = create_app(settings)
        made(app, pages, options.times)
        if not options.no_browser:
            painted(create_app(settings), pages, options.times)


if __name__ == "__main__":
    main()
