"""The settings of who may ask for what, and from where."""

import re
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9._-]+|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+")
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_RATE = re.compile(r"[1-9][0-9]{0,8}/([1-9][0-9]{0,3} ?)?(second|minute|hour|day)s?")
_RATE_STORAGES = ("memory", "redis", "rediss")

Most = Annotated[int, Field(ge=0)]


def listed(text: str) -> list[str]:
    """The items of a list in a setting: separated by commas or spaces."""
    return text.replace(",", " ").split()


class AccessSettings(BaseSettings):
    """Keys, hosts, log-in, limits and the audit log. See docs/security.md."""

    auth: Literal["off", "keys"] = Field(
        "off", description="off: on a loopback address only. keys: every request needs a key."
    )
    allowed_hosts: str = Field(
        "",
        description="Names the service is called by, such as mlhf.example.org or *.example.org. "
        "Default: this machine's; with keys any.",
    )
    allowed_origins: str = Field(
        "", description="Origins of pages that may send requests, beside the service's own."
    )
    trusted_proxies: str = Field(
        "", description="Addresses or networks whose X-Forwarded-For and -Proto are believed."
    )
    session_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs the cookies of those who log in. Default: a file under data_dir.",
    )
    session_hours: Annotated[float, Field(gt=0, le=24 * 30)] = 12.0

    oidc_issuer: str = Field("", description="Log-in by OpenID Connect: the issuer's URL.")
    oidc_client_id: str = ""
    oidc_client_secret: SecretStr = SecretStr("")
    oidc_extra_scopes: str = Field("profile email", description="Asked for beside openid.")
    oidc_tenant: str = Field("local", description="Tenant of who logs in, where no claim says it.")
    oidc_tenant_claim: str = Field("", description="The claim that names the tenant.")
    oidc_groups_claim: str = Field("groups", description="The claim that lists groups.")
    oidc_read_groups: str = Field("", description="Groups that may read; * is everybody.")
    oidc_write_groups: str = Field("", description="Groups that may write.")
    oidc_admin_groups: str = Field("", description="Groups that administer their tenant.")

    rate_limit_reads: str = Field("6000/minute", description="Of a key. Empty: none.")
    rate_limit_writes: str = Field("1200/minute", description="Of a key. Empty: none.")
    rate_limit_failures: str = Field(
        "60/minute", description="Requests without a valid key, of an address. Empty: none."
    )
    rate_limit_storage: str = Field(
        "",
        description="memory:// (one process), redis://…, or database. "
        "Default: the broker where that is Redis, else database.",
    )
    quota_jobs: Most | None = Field(None, description="Jobs of a tenant that have not ended.")
    quota_queued_runs: Most | None = Field(None, description="Runs of a tenant that wait.")
    quota_storage_bytes: Most | None = Field(None, description="Stored files of a tenant.")

    audit_days: Annotated[int, Field(ge=1)] = Field(
        365, description="The audit log is kept so long."
    )

    @field_validator("rate_limit_reads", "rate_limit_writes", "rate_limit_failures")
    @classmethod
    def _rate(cls, value: str) -> str:
        if value and not _RATE.fullmatch(value):
            raise ValueError("not a rate such as 600/minute; units: second, minute, hour, day")
        return value

    @field_validator("rate_limit_storage")
    @classmethod
    def _rate_storage(cls, value: str) -> str:
        if value and value != "database" and value.partition("://")[0] not in _RATE_STORAGES:
            raise ValueError("use memory://, redis://host:6379/1 or database")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: str) -> str:
        return _all(value, _HOST, "a host's name, without port: mlhf.example.org, *.example.org")

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        return _all(value, _ORIGIN, "an origin: https://mlhf.example.org")

    @field_validator("oidc_tenant")
    @classmethod
    def _tenant(cls, value: str) -> str:
        return tenant_name(value)

    @field_validator("session_secret")
    @classmethod
    def _long(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 32:
            raise ValueError("at least 32 characters are needed")
        return value


def tenant_name(value: str) -> str:
    """The name of a tenant, checked. Raises ValueError."""
    if not _TENANT.fullmatch(value):
        raise ValueError("a tenant's name is of a-z, 0-9, - and _, at most 64 characters")
    return value


def _all(value: str, pattern: re.Pattern[str], what: str) -> str:
    for item in listed(value):
        if not pattern.fullmatch(item):
            raise ValueError(f"{item!r} is not {what}")
    return value
