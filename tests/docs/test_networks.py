"""The page about own networks: what it shows runs as it stands, in an empty folder."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/networks.md"


def test_a_network_is_traced_trained_and_goes_back_into_its_module(tmp_path: Path) -> None:
    traced, back, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    program = f"{traced}\n{back}\nprint(result.status)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.stdout.split()[-1:] == ["succeeded"], ran.stderr
    assert (tmp_path / "run/artifacts/model.safetensors").exists()
