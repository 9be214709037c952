"""Fill a database, and measure a service on it.

    python -m bench.load fill --database-url URL [--runs 100000] [--points 50000000]
    python -m bench.load read --port PORT [--seconds 5] [--clients 1]
    python -m bench.load post --port PORT [--clients 50] [--seconds 20] [--rate 150]
    python -m bench.load stream --port PORT [--clients 2000]

The service is started apart, e.g. ``mlhf api --processes 2 --port PORT`` on the same database.
"""

import argparse

import uvloop

from bench.load import reads
from bench.load.client import closed, opened


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("fill", "read", "post", "stream"))
    parser.add_argument("--database-url")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=50_000_000)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--rate", type=float, help="Open loop: requests a second.")
    parser.add_argument("--only", default="", help="Part of the name of what is asked for.")
    options = parser.parse_args()
    if options.what == "fill":
        from bench.load import points
        from bench.load.fill import fill, settle
        from mlhf_service.database import Database
        from mlhf_service.migrate import migrate

        database = Database(options.database_url)
        migrate(database)
        trained = fill(database, options.runs)
        say(f"{len(trained):,} runs were trained")
        if options.points:
            say(f"{points.add(database, trained, options.points):,} points")
        settle(database)
    else:
        uvloop.run(measure(options))


async def measure(options: argparse.Namespace) -> None:
    where = options.host, options.port
    if options.what == "read":
        await reads.each(*where, options.seconds, options.clients or 1, options.only, say)
    elif options.what == "stream":
        await under_streams(options, options.clients or 2000)
    elif options.what == "post" and options.rate:
        say((await opened(*where, options.rate, options.seconds, reads.creations())).line())
    elif options.what == "post":
        clients = options.clients or 50
        say((await closed(*where, clients, options.seconds, reads.creations())).line())


async def under_streams(options: argparse.Namespace, clients: int) -> None:
    """What the list of jobs takes without and with clients that follow a waiting job."""
    host, port = options.host, options.port
    request = ("GET", "/v1/jobs?limit=1", b"")
    found = await closed(host, port, 1, options.seconds, lambda: request)
    say(f"{0:>6} listen: {found.line()}")
    job_id = await reads.waiting_job(host, port)
    for count in sorted({100, 400, clients}):
        writers = await reads.listen(host, port, job_id, count)
        found = await closed(host, port, 1, options.seconds, lambda: request)
        say(f"{count:>6} listen: {found.line()}")
        for writer in writers:
            writer.close()


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
