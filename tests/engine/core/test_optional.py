"""What only an extra brings: the library works without it, and says what is missing."""

import subprocess
import sys

import numpy as np
import pytest

from mlhf.core.optional import MissingPackageError, from_extra
from mlhf.optimizers.registry import build
from mlhf.runner import failure

# Imports fail as they do where pip installed no extra.
_BARE = """
import sys
for name in ("PIL", "pyarrow", "sklearn", "pytorch_optimizer", "schedulefree"):
    sys.modules[name] = None
"""


def _bare(code: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", _BARE + code, *arguments], check=True)


def test_the_error_says_what_to_install():
    message = r"no_such_package.*pip install 'mlhf\[data\]'"
    with pytest.raises(MissingPackageError, match=message) as caught, from_extra("data"):
        import no_such_package  # noqa: F401
    assert caught.value.name == "no_such_package"
    assert "mlhf[data]" in failure(caught.value)["error"]["detail"]


def test_data_that_need_no_extra_are_read_without(tmp_path):
    x, y = np.zeros((10, 3, 4, 4), np.uint8), np.arange(10) % 2
    np.savez(tmp_path / "data.npz", x=x, y=y)
    batch = np.zeros((10, 3073), np.uint8)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        batch.tofile(tmp_path / name)
    code = """
from pathlib import Path
from mlhf.data.specs import DATASETS, describe, validate
assert validate("npz", {}, sys.argv[1]).outputs == 2
assert validate("cifar10", {"size": 16}, sys.argv[1]).input_shape == (3, 16, 16)
for name in ("mnist", "fashion_mnist", "text"):
    DATASETS[name].load()
"""
    _bare(code, str(tmp_path))


@pytest.mark.parametrize("name", ["digits", "image_folder", "hf_images", "table"])
def test_a_missing_package_of_a_data_set_is_named(name, tmp_path):
    code = """
from mlhf.core.optional import MissingPackageError
from mlhf.data.specs import digest
try:
    digest(sys.argv[1], {"target": "y"} if sys.argv[1] == "table" else {}, sys.argv[2])
except MissingPackageError as error:
    assert "pip install 'mlhf[data]'" in str(error), error
else:
    raise AssertionError("no error")
"""
    _bare(code, name, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        *((name, "pytorch_optimizer") for name in ("soap", "normuon", "ademamix", "splus")),
        ("psgd_kron", "pytorch_optimizer"),
        ("schedule_free_adamw", "schedulefree"),
    ],
)
def test_a_missing_package_of_an_optimizer_is_named(name, package, monkeypatch):
    from mlhf.optimizers.first_order import psgd, soap, splus

    for module in (psgd, soap, splus):
        module._class.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    import torch

    with pytest.raises(MissingPackageError, match=rf"{package}.*mlhf\[peers\]"):
        build(name, {}, torch.nn.Linear(2, 2))
