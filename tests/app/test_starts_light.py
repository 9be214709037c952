"""The API starts fast and never loads torch; forking a process that used torch hangs."""

import subprocess
import sys


def test_the_service_imports_no_torch() -> None:
    code = (
        "import sys, mlhf_service.main, mlhf_service.cli.app, mlhf_service.deployment;"
        "import mlhf_service.queue.worker_main;"
        "heavy = {'torch', 'matplotlib', 'pyarrow', 'sklearn'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_job_is_checked_without_torch() -> None:
    code = """
import sys
from mlhf.models.specs import MODELS, summarize
from mlhf.data.specs import describe
from mlhf.optimizers.specs import OPTIMIZERS
info = describe("digits", {}, None)
summarize("mlp", {}, info)
[OPTIMIZERS.parse(name, {}) for name in OPTIMIZERS]
assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
