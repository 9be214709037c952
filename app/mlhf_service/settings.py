"""Every setting of the service, in one typed class, read from ``MLHF_*`` variables."""

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from mlhf_service.access_settings import AccessSettings

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

_SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "PGPASSWORD",
    "REDISCLI_AUTH",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
)

Positive = Annotated[float, Field(gt=0)]


def _secrets_dir() -> str | None:
    folder = os.environ.get("MLHF_SECRETS_DIR", "/run/secrets")
    return folder if os.path.isdir(folder) else None


class Settings(AccessSettings):
    """Settings of one deployment. The default is embedded: one folder, no other server.

    Each field is read from the environment variable ``MLHF_<FIELD>``, and from the file
    named by ``MLHF_ENV_FILE`` (default ``.env``) where the variable is not set; then from the
    file ``mlhf_<field>`` in ``MLHF_SECRETS_DIR`` (default: where containers have their secrets).
    """

    model_config = SettingsConfigDict(
        env_prefix="MLHF_",
        env_file=os.environ.get("MLHF_ENV_FILE", ".env"),
        secrets_dir=_secrets_dir(),
        extra="ignore",
    )

    data_dir: Path = Field(Path(".mlhf"), description="Folder that holds all embedded state.")
    database_url: str = Field("", description="Default: SQLite under data_dir.")
    broker_url: str = Field("", description="Default: filesystem:// under data_dir.")
    artifacts_url: str = Field(
        "", description="Folder for artifacts, or s3://bucket/prefix. Default: under data_dir."
    )
    database_wait_seconds: Annotated[float, Field(ge=0)] = Field(
        60.0, description="At its start a process waits so long for a PostgreSQL that is away."
    )
    data_cache_bytes: Annotated[int, Field(ge=0)] = Field(
        8 * 2**30,
        description="What decoded data sets may take on a worker's disk; 0 keeps none.",
    )
    artifact_cache_bytes: Annotated[int, Field(ge=0)] = Field(
        20 * 2**30, description="Of what lies in a bucket, so much is kept under data_dir too."
    )
    datasets_dir: Path | None = Field(None, description="Folder with data sets by name.")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    metrics_port: Annotated[int, Field(ge=1, le=65_535)] | None = Field(
        None, description="Where a supervisor gives what its processes measure, to Prometheus."
    )
    metrics_host: str = "127.0.0.1"
    api_processes: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Processes that answer HTTP, on one socket."
    )
    workers: Annotated[int, Field(ge=0, le=256)] = 1
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="Threads of a trainer. Default: cores / (workers + 1), at least 1."
    )
    gpu: bool | None = Field(None, description="Whether a GPU worker runs. Default: detected.")

    log_format: Literal["text", "json"] = Field("text", description="json is for containers.")
    log_output: Literal["files", "stdout"] = Field(
        "files", description="Of processes that are kept running: files under data_dir, or stdout."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    lease_seconds: Positive = Field(30.0, description="A silent worker loses its run after this.")
    logger_seconds: Positive = Field(
        300.0,
        description="A run that is logged from elsewhere has failed when its program was silent "
        "for so long.",
    )
    heartbeat_seconds: Positive = 3.0
    poll_seconds: Positive = Field(1.0, description="How often sweepers look at the database.")
    grace_seconds: Positive = Field(
        20.0, description="From asking a trainer to stop to killing it."
    )
    checkpoint_seconds: Positive = 15.0
    spare: bool = Field(
        True,
        description="A worker keeps a process with torch imported (some 250 MB): runs start two "
        "seconds sooner.",
    )
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    orphan_seconds: Positive = Field(
        86_400.0, description="Files that no row names are deleted when they are this old."
    )
    min_free_bytes: Annotated[int, Field(ge=0)] = Field(
        64 * 2**20, description="A disk with less room is full: no run starts, no job is taken."
    )

    max_running_per_key: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Runs of one key at once. Default: as many as there are workers."
    )
    max_running_per_tenant: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Runs of one tenant at once. Default: as many as there are workers."
    )
    worker_memory_bytes: Annotated[int, Field(ge=2**20)] | None = Field(
        None,
        description="What the runs on one machine may need together, by estimate. Default: nine "
        "tenths of the memory of the machine, or of the container.",
    )

    trainer_confinement: Literal["auto", "required", "off"] = Field(
        "auto",
        description="Trainers without network and capabilities: as far as the system lets them, "
        "or not at all without; or left as they are.",
    )
    trainer_cgroup: Path | None = Field(
        None,
        description="Folder of cgroup v2 in which workers may make groups. Default: that above "
        "their own, where it is theirs. Else memory is limited by rlimit.",
    )

    max_wall_seconds: Positive = Field(
        7 * 86_400.0, description="A run that has held a worker for so long is ended."
    )
    max_steps: Annotated[int, Field(ge=1)] = Field(
        1_000_000_000, description="What the budget of one run may come to."
    )
    max_threads: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Threads a run may ask for. Default: the cores of the largest worker."
    )
    max_parameters: int = 100_000_000
    max_memory_bytes: int = 8 * 2**30
    max_sweep_runs: int = 256
    max_json_bytes: int = 2**20
    max_event_streams: Annotated[int, Field(ge=1)] = Field(
        5000, description="Clients that may follow events at once, of each API process."
    )
    max_upload_bytes: int = 2 * 2**30
    max_expanded_bytes: int = 8 * 2**30
    max_upload_entries: int = 2_000_000
    upload_check_memory_bytes: Annotated[int, Field(ge=2**28)] = Field(
        2 * 2**30, description="What reading all of one upload may take."
    )
    upload_check_seconds: Positive = 900.0
    examiner_idle_seconds: Positive = Field(
        600.0,
        description="The process with torch that checks networks (some 250 MB, one of each API "
        "process) is ended when nobody has sent one for so long.",
    )

    predictors: Annotated[int, Field(ge=0, le=16)] = Field(
        1, description="Processes of each API process that predict; 0 switches predictions off."
    )
    predict_seconds: Positive = Field(60.0, description="What one prediction may take.")
    predictor_memory_bytes: Annotated[int, Field(ge=2**28)] = Field(
        2 * 2**30, description="What a process that predicts may take, torch included."
    )
    predictor_idle_seconds: Positive = Field(
        600.0, description="A process that predicts is ended when nobody asked it for so long."
    )

    webhook_private_hosts: str = Field(
        "",
        description="Hosts, separated by commas, that webhooks may be sent to though their "
        "addresses are not public, and by http too.",
    )

    mlflow_url: str = Field(
        "",
        description="An MLflow server's address: runs are written through to it as they train. "
        "The variables MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD, authenticate. One that "
        "is away is a warning.",
    )
    mlflow_experiment: str = Field(
        "", description="The experiment for all of them. Default: mlhf/PROJECT for each project."
    )

    @field_validator("mlflow_url")
    @classmethod
    def _mlflow_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.netloc):
            raise ValueError("not an address: use http://host:5000")
        return value.rstrip("/")

    @field_validator("artifacts_url")
    @classmethod
    def _folder_or_bucket(cls, value: str) -> str:
        scheme, separator, rest = value.partition("://")
        if not separator:
            return value
        if scheme == "file":
            return rest
        parts = urlsplit(value)
        if scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query:
            raise ValueError(
                "not a store of artifacts: use a folder (a path or file://), or s3://bucket/prefix "
                "with endpoint, region and keys in the variables AWS_*"
            )
        return value.rstrip("/")

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
    def webhook_private(self) -> frozenset[str]:
        """``webhook_private_hosts`` as a set, in lower case."""
        names = (name.strip().lower() for name in self.webhook_private_hosts.split(","))
        return frozenset(filter(None, names))

    @property
    def broker(self) -> str:
        return self.broker_url or "filesystem://localhost"

    @property
    def artifacts_folder(self) -> Path | None:
        """The folder of artifacts, links in it and all; None where they are in a bucket."""
        if self.artifacts_url.startswith("s3://"):
            return None
        return Path(self.artifacts_url or self.data_dir / "artifacts").expanduser()

    @property
    def artifacts(self) -> str:
        """Where artifacts are: the absolute path of a folder, or the URL of a bucket."""
        folder = self.artifacts_folder
        return self.artifacts_url if folder is None else str(folder.resolve())

    @property
    def data_cache(self) -> dict[str, object] | None:
        """The fields of the engine's cache of decoded data sets; None where there is none."""
        if not self.data_cache_bytes:
            return None
        return {
            "folder": str(self.root / "cache" / "datasets"),
            "max_bytes": self.data_cache_bytes,
            "min_free_bytes": 4 * self.min_free_bytes,  # a cache fills no disk
        }

    @property
    def artifact_cache_dir(self) -> Path:
        """Copies of what lies in a bucket."""
        return self.root / "cache" / "artifacts"

    @property
    def datasets_root(self) -> Path:
        """Where built-in data sets are looked for, each in a folder of its name."""
        return (self.datasets_dir or self.root / "datasets").expanduser().resolve()

    @property
    def predictor_dir(self) -> Path:
        """Models that were used for predictions, and files that are predicted."""
        return self.root / "predictor"

    @property
    def spool_dir(self) -> Path:
        return self.root / "spool"

    @property
    def alive_file(self) -> Path:
        """Touched at each heartbeat of a worker, whether or not the database answers."""
        return self.root / "alive"

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

    def secrets(self) -> list[str]:
        """What no log may show: the passwords that the settings and the environment hold."""
        urls = (self.database_url, self.broker_url, self.mlflow_url)
        found = [urlsplit(url).password for url in urls] + [os.environ.get(n) for n in _SECRETS]
        return [secret for secret in found if secret]

    def environment(self) -> dict[str, str]:
        """The variables that give a child process these same settings."""
        values = self.model_dump(mode="json", exclude_none=True)
        values["data_dir"] = str(self.root)
        for name, value in self:
            if isinstance(value, SecretStr):  # as JSON it is only stars
                values[name] = value.get_secret_value()
        return {f"MLHF_{name.upper()}": str(value) for name, value in values.items()}

    def public(self) -> dict[str, object]:
        """The settings as they are in force, with passwords hidden."""
        values = self.model_dump(mode="json")
        values["data_dir"] = str(self.root)
        values["datasets_dir"] = str(self.datasets_root)
        values["artifacts_url"] = self.artifacts
        values["database_url"] = make_url(self.database).render_as_string(hide_password=True)
        values["broker_url"] = hide_password(self.broker)
        values["mlflow_url"] = hide_password(self.mlflow_url)
        values["rate_limit_storage"] = hide_password(self.rate_limit_storage)
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
