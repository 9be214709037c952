"""The optimizer library alone: torch, NumPy, safetensors and pydantic are enough."""

import base64
import json
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.packaging.conftest import clean_environment

# A PNG of one grey pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


@pytest.fixture
def run(install, tmp_path):
    """Runs a program of an environment that has the wheel and no extras."""
    environment: Path = install()

    def run(command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(environment / "bin" / command), *arguments],
            cwd=tmp_path,
            env=clean_environment(tmp_path / "home"),
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.long
def test_it_steps_and_trains(run):
    text = """
        import json, sys
        import mlhf, numpy, torch
        from torch import nn

        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = mlhf.MLHF(model)
        x, y = torch.randn(32, 4), torch.randint(0, 3, (32,))
        losses = [optimizer.step(x, y).loss.item() for _ in range(10)]

        numpy.savez("points.npz", x=x.numpy(), y=y.numpy())
        result = mlhf.train({
            "model": {"name": "mlp", "params": {"hidden": [8]}},
            "dataset": {"name": "npz", "root": "."},
            "optimizer": {"name": "mlhf"},
            "budget": {"steps": 3},
            "batch_size": 8,
        })
        print(json.dumps([losses, result.status, list(sys.modules)]))
    """
    found = run("python", "-c", textwrap.dedent(text))
    assert found.returncode == 0, found.stderr
    losses, status, modules = json.loads(found.stdout.splitlines()[-1])
    assert losses[-1] < losses[0]
    assert status == "succeeded"
    assert not {"fastapi", "PIL", "pyarrow", "sklearn", "sqlalchemy"} & set(modules)


def test_the_command_says_how_to_install_it(run):
    found = run("mlhf", "serve")
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1
    assert "pip install 'mlhf[service]'" in found.stderr


# What is asked for: changes of a job that needs nothing, the package, and the extra.
WANTED = [
    ({"dataset": {"name": "digits"}}, "sklearn", "data"),
    ({"dataset": {"name": "table", "root": ".", "params": {"target": "c"}}}, "pyarrow", "data"),
    ({"dataset": {"name": "image_folder", "root": "images"}}, "PIL", "data"),
    ({"optimizer": {"name": "soap"}}, "pytorch_optimizer", "peers"),
    ({"optimizer": {"name": "schedule_free_adamw"}}, "schedulefree", "peers"),
]


def test_what_an_extra_brings_is_asked_for_by_its_name(run, tmp_path):
    (tmp_path / "points.csv").write_text("a,b,c\n" + "1.5,2.5,0\n3.5,4.5,1\n" * 20)
    for label in ("cat", "dog"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "images" / label / f"{number}.png").write_bytes(PIXEL)
    config = {
        "model": {"name": "mlp", "params": {"hidden": [8]}},
        "dataset": {"name": "npz", "root": "points.npz"},
        "optimizer": {"name": "sgd"},
        "budget": {"steps": 1},
        "batch_size": 8,
    }
    text = f"""
        import mlhf, numpy
        from mlhf.core.optional import MissingPackageError

        numpy.savez("points.npz", x=numpy.ones((40, 2), "f4"), y=numpy.arange(40) % 2)
        for changes in {[changes for changes, _, _ in WANTED]!r}:
            try:
                mlhf.train({config!r} | changes)
                print("trained")
            except MissingPackageError as error:
                print(error)
    """
    found = run("python", "-c", textwrap.dedent(text))
    assert found.returncode == 0, found.stderr
    for message, (_, package, extra) in zip(found.stdout.splitlines(), WANTED, strict=True):
        assert package in message
        assert f"pip install 'mlhf[{extra}]'" in message
