"""``mlhf trace`` writes a network; the client sends a module in a few lines."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from mlhf.models.graph.network import read_network
from mlhf_service.cli.app import cli
from mlhf_service.client import Client, ServiceError
from mlhf_service.errors import StartError

SOURCE = """
import torch
from torch import nn
def make_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
def odd():
    return nn.Sequential(nn.Linear(3, 3), Branch()), torch.randn(2, 3)
class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x
"""


def test_a_function_of_a_file_is_traced(tmp_path):
    source = tmp_path / "mine.py"
    source.write_text(SOURCE)
    arguments = ["trace", f"{source}:make_model", "--shape", "1,8,8"]
    done = CliRunner().invoke(cli, [*arguments, "--output", str(tmp_path / "net")])
    assert done.exit_code == 0, done.output
    module = read_network(tmp_path / "net.json").module()
    assert module(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    refused = CliRunner().invoke(cli, ["trace", f"{source}:odd"])
    assert isinstance(refused.exception, StartError)
    assert "x if x.sum() > 0" in str(refused.exception)
    for wrong in (f"{source}:none", "none.py:make_model", f"{source}:make_model"):
        assert isinstance(CliRunner().invoke(cli, ["trace", wrong]).exception, StartError)


def test_a_module_is_submitted_in_a_few_lines(monkeypatch):
    sent = []

    def answer(method, path, **options):
        sent.append((path, options))
        return {"id": "net_1"}

    service = Client("http://127.0.0.1:1")
    monkeypatch.setattr(service, "request_json", answer)
    monkeypatch.setattr(service, "_carry_out", lambda operation: next(operation))
    # What a user writes:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    job = service.submit(
        model=model, example=torch.randn(2, 1, 8, 8), dataset="digits", optimizer="mlhf", epochs=1
    )
    ((path, options),) = sent
    assert path == "/v1/networks"
    assert set(options["files"]) == {"graph", "weights"}
    assert job.options["json"]["model"] == {"name": "graph", "params": {"network": "net_1"}}
    with pytest.raises(ServiceError, match="example="):
        service.submit(model=model, dataset="digits", optimizer="adam", epochs=1)
