"""Builds the C++ operators into the wheel, where the build environment can.

It can where torch is installed in it (``pip wheel . --no-build-isolation``) and a C++ compiler:
the wheel is then for this platform, and for every Python and every torch the package allows.
Elsewhere the wheel is pure, and the operators are compiled at first use. ``MLHF_BUILD_KERNELS``
set to 1 makes a build fail that cannot build them; set to 0 it leaves them out.
"""

import importlib.util
import os
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_KERNELS = "mlhf/optimizers/mlhf/kernels"


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles one library for each instruction set of this kind of processor."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wanted = os.environ.get("MLHF_BUILD_KERNELS", "")
        if self.target_name != "wheel" or version == "editable" or wanted == "0":
            return
        build = _module(Path(self.root, "engine", _KERNELS, "build.py"))
        self._folder = tempfile.TemporaryDirectory(prefix="mlhf-kernels-")
        built = {}
        try:
            compiler = build.find_compiler()
            for instructions in build.instruction_sets():
                name = build.file_name(instructions)
                target = Path(self._folder.name, name)
                build.run([*build.command(compiler, instructions), "-o", str(target)])
                built[str(target)] = f"{_KERNELS}/{build.AHEAD}/{name}"
        except build.NoCompiler as error:
            if wanted == "1":
                raise
            self.app.display_warning(f"The wheel has no compiled operators: {error}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["force_include"].update(built)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("mlhf_kernels_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
