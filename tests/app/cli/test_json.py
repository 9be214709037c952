"""Every command that answers something can answer it as JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mlhf_service.cli.app import cli
from tests.app.cli.conftest import Call
from tests.app.conftest import Rows

_PROCESSES = {"serve", "api", "worker", "demo"}  # they run on, and answer nothing


def _commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path}{name} ")
        else:
            yield path + name, command


def test_every_command_has_json() -> None:
    found = dict(_commands(typer.main.get_command(cli)))
    assert len(found) > 50, "the commands were not found"
    lacking = {
        name
        for name, command in found.items()
        if not any("--json" in option.opts for option in command.params)
    }
    assert lacking == _PROCESSES


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_retention_as_json(call: Call, rows: Rows) -> None:
    from mlhf_service.database import now

    job = rows.job(finished_at=now())
    rows.run(job)
    rule = json.dumps({"keep_newest": 0})
    assert json.loads(call("retention", "preview", rule, "--json").output)["ids"] == [job]
    made = json.loads(call("retention", "add", "mine", rule, "--json").output)
    assert json.loads(call("retention", "run", made["id"], "--json").output)["dropped"] == 1


def test_a_traced_network_as_json(call: Call, tmp_path: Path) -> None:
    source = tmp_path / "networks.py"
    source.write_text(
        "import torch\n\n"
        "class Small(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(3, 2)\n\n"
        "    def forward(self, x):\n"
        "        return self.layer(x).tanh()\n\n"
        "def small():\n"
        "    return Small(), torch.zeros(4, 3)\n"
    )
    answer = call("trace", f"{source}:small", "--output", str(tmp_path / "small"), "--json")
    said = json.loads(answer.output)
    assert said["inputs"][0]["shape"] == [3]
    assert said["nodes"] > 0
    assert Path(said["path"]).is_file()
