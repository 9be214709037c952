"""Where settings come from."""

import os
import subprocess
import sys
from pathlib import Path

_PRINTS = "from mlhf_service.settings import Settings; print(Settings(_env_file=None).database_url)"


def printed(**variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLHF_")} | variables
    command = [sys.executable, "-W", "error", "-c", _PRINTS]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def test_secrets_are_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mlhf_database_url").write_text("sqlite:////from/a/file\n")
    assert printed(MLHF_SECRETS_DIR=str(tmp_path)) == "sqlite:////from/a/file"
    named = {"MLHF_SECRETS_DIR": str(tmp_path), "MLHF_DATABASE_URL": "sqlite:////named"}
    assert printed(**named) == "sqlite:////named"
    assert printed(MLHF_SECRETS_DIR=str(tmp_path / "none")) == ""
