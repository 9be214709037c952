"""A RabbitMQ node killed and stopped in every stage of a run; the lanes' broker is Redis."""

from pathlib import Path

from bench.faults import matrix
from bench.faults.deployment import Deployment
from bench.faults.report import Report
from bench.faults.servers import PostgreSQL, RabbitMQ

_KIND = "rabbitmq"


def on_rabbitmq(folder: Path) -> Deployment:
    """A service on PostgreSQL and RabbitMQ."""
    folder.mkdir(parents=True)
    servers = {"database": PostgreSQL(folder / "pg"), _KIND: RabbitMQ(folder / "rabbitmq")}
    return Deployment(folder, servers)


def run(deployment: Deployment, expected: str, seed: int, report: Report) -> None:
    """Make each fault that is not in the report yet."""
    for scenario in matrix.scenarios([_KIND], (0.0, 5.0)):
        if str(scenario) not in report.made:
            matrix.run(deployment, scenario, expected, f"{seed}-{scenario}", report)
