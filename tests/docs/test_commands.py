"""Every ``mlhf`` command that a guide shows exists, with its options and arguments."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mlhf_service.cli.app import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_ENDS = {"<", ">", "|", "&&", "&", ";", "||"}


def commands(page: Path) -> Iterator[list[str]]:
    for block in _BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            if "mlhf " not in line:
                continue  # its quotes may go over several lines
            lexer = shlex.shlex(line, posix=True, punctuation_chars=";<>|&")
            lexer.whitespace_split = True
            words = [word for word in lexer if word not in ("…", "sudo")]
            while words:
                end = next((i for i, w in enumerate(words) if w in _ENDS), len(words))
                part, words = words[:end], words[end + 1 :]
                while part and re.fullmatch(r"[A-Z_]+=.*", part[0]):
                    part = part[1:]
                if part and part[0].rpartition("/")[2] == "mlhf":
                    yield part[1:]


def parse(arguments: list[str]) -> None:
    """Parse as the command line does, and run nothing."""
    command: Any = typer.main.get_command(cli)
    while hasattr(command, "commands"):
        if not arguments or arguments[0].startswith("-"):
            return
        name, *arguments = arguments
        found = command.commands.get(name)
        if found is None:
            raise LookupError(f"no command {name}")
        command = found
    command.make_context(command.name, list(arguments))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_can_be_given(page: Path) -> None:
    wrong = []
    for arguments in commands(page):
        try:
            parse(arguments)
        except typer.Exit:
            pass
        except Exception as error:  # Typer's own kinds, whose names are private
            wrong.append(f"mlhf {' '.join(arguments)}: {error}")
    assert wrong == []


def test_a_wrong_command_would_be_found() -> None:
    assert sum(1 for page in PAGES for _ in commands(page)) > 60
    for arguments, why in (
        (["runs", "--odd"], "No such option"),
        (["nothing"], "no command"),
        (["projects", "move"], "Missing parameter"),
    ):
        with pytest.raises(Exception, match=why):
            parse(arguments)
