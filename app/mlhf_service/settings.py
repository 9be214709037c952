"""Every setting of the service, in one typed class, read from ``MLHF_*`` variables."""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DATABASES = ("sqlite", "sqlite+pysqlite", "postgresql+psycopg")
BROKERS = (
    "filesystem",
    "redis",
    "rediss",
    "redis+socket",
    "sentinel",
    "amqp",
    "amqps",
    "pyamqp",
)

Positive = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """Settings of one deployment. The default is embedded: one folder, no other server.

    Each field is read from the environment variable ``MLHF_<FIELD>``, and from the file
    named by ``MLHF_ENV_FILE`` (default ``.env``) where the variable is not set.
    """

    model_config = SettingsConfigDict(
        env_prefix="MLHF_", env_file=os.environ.get("MLHF_ENV_FILE", ".env"), extra="ignore"
    )

    data_dir: Path = Field(Path(".mlhf"), description="Folder that holds all embedded state.")
    database_url: str = Field("", description="Default: SQLite under data_dir.")
    broker_url: str = Field("", description="Default: filesystem:// under data_dir.")
    artifacts_url: str = Field("", description="Folder for artifacts. Default: under data_dir.")
    datasets_dir: Path | None = Field(None, description="Folder with data sets by name.")
    auth: Literal["off"] = Field("off", description="Off only on a loopback address.")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    workers: Annotated[int, Field(ge=0, le=256)] = 1
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="Threads of a trainer. Default: cores / (workers + 1), at least 1."
    )
    gpu: bool | None = Field(None, description="Whether a GPU worker runs. Default: detected.")

    lease_seconds: Positive = Field(30.0, description="A silent worker loses its run after this.")
    heartbeat_seconds: Positive = 3.0
    poll_seconds: Positive = Field(1.0, description="How often sweepers look at the database.")
    grace_seconds: Positive = Field(
        20.0, description="From asking a trainer to stop to killing it."
    )
    checkpoint_seconds: Positive = 15.0
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5

    max_parameters: int = 100_000_000
    max_memory_bytes: int = 8 * 2**30
    max_sweep_runs: int = 256
    max_json_bytes: int = 2**20
    max_upload_bytes: int = 2 * 2**30
    max_expanded_bytes: int = 8 * 2**30
    max_upload_entries: int = 2_000_000

    @field_validator("artifacts_url")
    @classmethod
    def _folder_only(cls, value: str) -> str:
        if "://" in value and not value.startswith("file://"):
            raise ValueError("only a folder (a path or file://) is supported for artifacts")
        return value.removeprefix("file://")

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        try:
            driver = make_url(value).drivername if value else "sqlite"
        except ArgumentError:
            driver = ""
        if driver not in DATABASES:
            raise ValueError(
                "not a database's URL: use sqlite:///path, or "
                "postgresql+psycopg://user:password@host/database"
            )
        return value

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: str) -> str:
        if value and value.partition("://")[0] not in BROKERS:
            raise ValueError("not a broker's URL: use redis://host:6379/0 or amqp://host:5672//")
        return value

    @cached_property
    def root(self) -> Path:
        """The data folder, absolute."""
        return self.data_dir.expanduser().resolve()

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.root / 'mlhf.sqlite3'}"

    @property
    def broker(self) -> str:
        return self.broker_url or "filesystem://localhost"

    @property
    def artifacts_dir(self) -> Path:
        return Path(self.artifacts_url).resolve() if self.artifacts_url else self.root / "artifacts"

    @property
    def datasets_root(self) -> Path:
        """Where built-in data sets are looked for, each in a folder of its name."""
        return (self.datasets_dir or self.root / "datasets").expanduser().resolve()

    @property
    def spool_dir(self) -> Path:
        return self.root / "spool"

    @property
    def broker_dir(self) -> Path:
        return self.root / "broker"

    @property
    def logs_dir(self) -> Path:
        return self.root / "logs"

    @property
    def trainer_threads(self) -> int:
        return self.threads or max(1, (os.cpu_count() or 1) // (self.workers + 1))

    @property
    def has_gpu(self) -> bool:
        return Path("/dev/nvidia0").exists() if self.gpu is None else self.gpu

    def environment(self) -> dict[str, str]:
        """The variables that give a child process these same settings."""
        values = self.model_dump(mode="json", exclude_none=True)
        values["data_dir"] = str(self.root)
        return {f"MLHF_{name.upper()}": str(value) for name, value in values.items()}

    def public(self) -> dict[str, object]:
        """The settings as they are in force, with passwords hidden."""
        values = self.model_dump(mode="json")
        values["data_dir"] = str(self.root)
        values["datasets_dir"] = str(self.datasets_root)
        values["artifacts_url"] = str(self.artifacts_dir)
        values["database_url"] = make_url(self.database).render_as_string(hide_password=True)
        values["broker_url"] = hide_password(self.broker)
        values["threads"] = self.trainer_threads
        values["gpu"] = self.has_gpu
        return values


def hide_password(url: str) -> str:
    """Return ``url`` with the password of its authority replaced by ``***``."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if "@" not in authority:
        return url
    credentials, host = authority.rsplit("@", 1)
    user = credentials.partition(":")[0]
    return f"{scheme}{separator}{user}:***@{host}{slash}{path}"
