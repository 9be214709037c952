"""Which built-in data sets a machine has, and whether a worker has one that a job asks for.

API and workers look for built-in data sets in folders of their own machines. So that a job is
not accepted here and found impossible there, each worker says which it has.
"""

from mlhf.core.errors import SpecError
from mlhf.data.specs import DATASETS
from mlhf_service.context import Context
from mlhf_service.datasets.resolve import BUILTIN, builtin_root
from mlhf_service.settings import Settings
from mlhf_service.workers import repository as workers

_NAMED = 3  # hosts in a message


def here(settings: Settings) -> list[str]:
    """The built-in data sets that this machine has: in a folder, or brought by a library."""
    lacking = not_here(settings)
    return [name for name in BUILTIN if name not in lacking]


def not_here(settings: Settings) -> list[str]:
    """The built-in data sets whose folder is not on this machine."""
    return [
        name
        for name in BUILTIN
        if DATASETS[name].needs_root and builtin_root(settings, name) is None
    ]


def require_worker(context: Context, name: str) -> None:
    """Refuse a built-in data set that no worker has. Without any worker, one may still come.

    Raises SpecError at ``/name``.
    """
    if name not in BUILTIN or not DATASETS[name].needs_root:
        return
    alive = workers.alive(context.session, context.settings.lease_seconds)
    if not alive or any(w.datasets is None or name in w.datasets for w in alive):
        return
    hosts = list(dict.fromkeys(worker.host for worker in alive))
    named = ", ".join(hosts[:_NAMED]) + (" and others" if len(hosts) > _NAMED else "")
    raise SpecError(
        "/name",
        f"{name} is installed for the API, but no worker has it ({named}): give the workers a "
        "folder with it, and name that in their MLHF_DATASETS_DIR. With one folder for API and "
        "workers they cannot differ.",
    )
