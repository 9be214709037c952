"""A type checker sees the installed package's types, in a user's own project."""

import re
import subprocess
import sys
import textwrap

import pytest

from tests.packaging.conftest import clean_environment

PROJECT = """
    from pathlib import Path

    import torch
    from torch import nn

    import mlhf
    from mlhf import GGN, MLHF, HessianFree, TrainConfig, load_model, train

    model = nn.Linear(4, 3)
    x, y = torch.randn(8, 4), torch.randint(0, 3, (8,))
    optimizer = MLHF(model)
    reveal_type(MLHF)
    reveal_type(optimizer.step(x, y).loss)
    reveal_type(isinstance(optimizer, MLHF))
    hessian_free = HessianFree(model)
    reveal_type(hessian_free.step(x, y).loss)
    products = GGN(model, "cross_entropy", x, y)
    reveal_type(products.product([torch.ones(3, 4), torch.ones(3)]))
    reveal_type(train({"model": {"name": "mlp"}}, run_dir=Path("run")).model)
    reveal_type(load_model("run").module)
    reveal_type(mlhf.__version__)


    class Mine(MLHF):
        pass


    def batch_size(config: TrainConfig) -> int:
        return config.batch_size
"""
REVEALED = [
    "torch._tensor.Tensor",
    "bool",
    "torch._tensor.Tensor",
    "list[torch._tensor.Tensor]",
    "torch.nn.modules.module.Module",
    "torch.nn.modules.module.Module",
    "str",
]


@pytest.mark.long
def test_a_users_project_is_checked_strictly(install, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "user.py").write_text(textwrap.dedent(PROJECT))
    found = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")),
            *("--python-executable", str(install() / "bin/python"), "user.py"),
        ],
        cwd=project,
        env=clean_environment(tmp_path / "home"),
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    of_class, *rest = re.findall(r'Revealed type is "(.*)"$', found.stdout, re.MULTILINE)
    assert of_class.startswith(("type[", "Overload(", "def (")), of_class
    assert rest == REVEALED
    assert "Any" not in rest
