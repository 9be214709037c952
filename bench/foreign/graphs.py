"""The same networks as graphs: traced, trained by the service, and loaded into their own classes.

    python -m bench.foreign.graphs [--url http://127.0.0.1:8000] [--only WORD]

Each network is traced on this machine; what is rebuilt must give the same outputs and gradients,
to 1e-5, in both modes and for a batch that was not traced. With ``--url``, those that a data set
fits are then uploaded to that service, trained a few steps by two optimizers, downloaded, and
loaded into the network's own class. Writes ``docs/results/graphs.md``.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.foreign import tasks
from bench.foreign.networks import networks
from bench.foreign.networks.network import ByKeyword
from mlhf.models.graph.errors import TraceError
from mlhf.models.graph.network import Network
from mlhf.models.graph.trace import trace
from mlhf_service.client import Client, ServiceError

OPTIMIZERS = ("adamw", "mlhf")
_STEPS = 3
_FUZZ = "\n## Fuzz\n"
_ODD = ("early_exit", "by_value", "per_sample", "own_backward", "cached")


class Odd(nn.Module):
    """Control flow that no graph can follow; ``kind`` says which."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(8, 8)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return something whose way depends on values, the batch or what came before."""
        y: Tensor = self.layer(x)
        if self.kind == "early_exit" and y.abs().max() < 1:
            return y
        if self.kind == "by_value":
            for _ in range(int(y.sum().abs())):
                y = self.layer(y)
        if self.kind == "per_sample":
            return torch.stack([self.layer(row) for row in y])
        if self.kind == "own_backward":
            y = _Straight.apply(y)  # type: ignore[no-untyped-call]
        if self.kind == "cached":
            y = y if self.last is None else y + self.last.sum()
            self.last = y.detach()
        return y


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Round, with the gradient of the identity."""
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the gradient as it is."""
        return gradient


def main() -> None:
    """Trace all, train what fits, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path, default=Path("docs/results/graphs.md"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    client = Client(given.url, timeout=300.0) if given.url else None
    data = _Data(client) if client else None
    rows = []
    for name, network in networks().items():
        if given.only in name:
            rows.append(_row(name, network.make, network.batches, data))
            print(rows[-1], flush=True)
    refused = [_refusal(kind) for kind in _ODD]
    before = given.output.read_text() if given.output.exists() else ""
    _, found, fuzz = before.partition(_FUZZ)  # written by hand, from what bench.foreign.fuzz says
    given.output.write_text(_page(rows, refused) + found + fuzz)


def _row(name: str, make: Any, batches: Any, data: "_Data | None") -> dict[str, Any]:
    torch.manual_seed(0)
    try:
        module = make()
        x = batches()[0][0]
    except Exception as error:  # the library cannot make it here
        return {"name": name, "traced": f"not made: {type(error).__name__}"}
    if isinstance(module, ByKeyword):
        module = module.network
    example = _settled(x)
    began = time.process_time()
    try:
        network = trace(module, example)
    except TraceError as error:
        return {"name": name, "traced": "refused", "why": error.operation, "line": error.line}
    except Exception as error:
        return {"name": name, "traced": f"FAILED {type(error).__name__}: {str(error)[:200]}"}
    row: dict[str, Any] = {"name": name, "traced": "yes", "nodes": len(network.graph.nodes)}
    row["seconds"] = round(time.process_time() - began, 1)
    row["apart"] = _apart(module, network, x)
    if data is not None:
        row["trained"] = _trained(name, make, network, data)
    return row


def _settled(x: Any) -> Any:
    if not isinstance(x, Mapping):
        return x[:4]
    return {**{k: v[:4] if isinstance(v, Tensor) else v for k, v in x.items()}, **_settings(x)}


def _settings(x: Mapping[str, Any]) -> dict[str, Any]:
    return {"use_cache": False} if "input_ids" in x else {}


def _apart(module: nn.Module, network: Network, x: Any) -> str:
    """The largest difference of outputs on 7 samples that were not traced, in each mode."""
    rebuilt = network.module()
    found = []
    for training in (False, True):
        outputs = []
        for each in (module, rebuilt):
            torch.manual_seed(1)
            each.train(training)
            with torch.no_grad():
                if isinstance(x, Mapping):
                    rows = {k: v[8:15].clone() for k, v in x.items() if isinstance(v, Tensor)}
                    more = _settings(x) if each is module else {}
                    outputs.append(_leaves(each(**rows, **more)))
                else:
                    outputs.append(_leaves(each(x[8:15].clone())))
        pairs = zip(*outputs, strict=True)
        found.append(max(float((a - b).abs().max() / b.abs().max().clamp_min(1)) for a, b in pairs))
    return f"{found[0]:.0e} / {found[1]:.0e}"


def _leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value
    return [leaf for part in parts if part is not None for leaf in _leaves(part)]


class _Data:
    """Uploads of the data that networks are trained on."""

    def __init__(self, client: Client) -> None:
        self.client = client
        with tempfile.TemporaryDirectory() as folder:
            x = torch.cat([b[0] for b in tasks.images()])[:160].numpy().astype(np.float32)
            y = torch.cat([b[1] for b in tasks.images()])[:160].numpy()
            path = Path(folder) / "images.npz"
            np.savez(path, x_train=x[:128], y_train=y[:128], x_test=x[128:], y_test=y[128:])
            self.images = client.upload_files("images", "npz", [path], {})
            letters = [chr(0x4E00 + i) for i in range(tasks.VOCABULARY)]
            rng = np.random.default_rng(0)
            text = "".join(letters) + "".join(rng.choice(letters, 6000))
            path = Path(folder) / "text.txt"
            path.write_text(text, encoding="utf-8")
            params = {"sequence_length": tasks.TOKENS}
            self.text = client.upload_files("text", "text", [path], params)


def _trained(name: str, make: Any, network: Network, data: _Data) -> str:
    (first, *others) = network.graph.inputs
    if others:
        return "no data set has its inputs"
    dataset = data.text if first.dtype == "int64" else data.images
    client = data.client
    try:
        made = _upload(client, name, network)
        jobs = [_job(made["id"], dataset["id"], optimizer) for optimizer in OPTIMIZERS]
        runs = []
        for spec in jobs:
            job = client.wait(client.submit(spec)["id"], timeout=600)
            if job["status"] != "succeeded":
                return f"{spec['optimizer']['name']}: {job['status']}"
            runs += job["run_ids"]
        with tempfile.TemporaryDirectory() as folder:
            for run in runs:
                path = client.download(run, "model.safetensors", Path(folder) / "m.safetensors")
                own = make()
                own = own.network if isinstance(own, ByKeyword) else own
                own.load_state_dict(load_file(path))
        return "yes"
    except ServiceError as error:
        return f"no: {str(error)[:150]}"


def _upload(client: Client, name: str, network: Network) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = network.save(Path(folder) / "network")
        files = {
            "graph": path.read_bytes(),
            "weights": path.with_suffix(".safetensors").read_bytes(),
        }
        answer = client.request_json(
            "POST", "/v1/networks", data={"name": name}, files=files, timeout=300.0
        )
    return dict(answer)


def _job(network: str, dataset: str, optimizer: str) -> dict[str, Any]:
    return {
        "kind": "train",
        "model": {"name": "graph", "params": {"network": network}},
        "dataset": {"name": dataset},
        "optimizer": {"name": optimizer},
        "budget": {"steps": _STEPS},
        "batch_size": 16,
    }


def _refusal(kind: str) -> tuple[str, str, str, str]:
    torch.manual_seed(0)
    try:
        trace(Odd(kind), torch.randn(4, 8))
    except TraceError as error:
        line = error.line.rpartition("/")[2].replace("|", "\\|")
        return kind, error.operation, line, error.instead
    return kind, "NOT REFUSED", "", ""


def _page(rows: list[dict[str, Any]], refused: list[tuple[str, str, str, str]]) -> str:
    traced = [row for row in rows if row["traced"] == "yes"]
    trained = [row for row in rows if row.get("trained") == "yes"]
    lines = [
        "# Other people's modules as graphs",
        "",
        "Written by `python -m bench.foreign.graphs`. Networks of timm and transformers at random "
        "weights and small sizes are traced, rebuilt from JSON and tensors, and compared on 7 "
        "samples that were not traced: the largest difference of outputs, relative to the largest "
        "output (or 1), in evaluation and in training mode with the same seed. Those that a data "
        "set fits are uploaded, trained three steps by AdamW and by `mlhf`, downloaded, and loaded "
        "into their own class by `load_state_dict`.",
        "",
        f"{len(traced)} of {len(rows)} are traced. "
        + (
            f"{len(trained)} went all the way."
            if any("trained" in row for row in rows)
            else "No service was given to this run, so none was trained."
        ),
        "",
        "| network | traced | nodes | CPU s | difference | trained and loaded back |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        why = f": {row['why']}" if "why" in row else ""
        cells = [row["name"], row["traced"] + why]
        cells += [str(row.get(key, "")) for key in ("nodes", "seconds", "apart", "trained")]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    lines += ["", "Modules with odd control flow are refused:", ""]
    lines += ["| module | what it does | line | write instead |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in refused]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
