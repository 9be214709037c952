"""A network's files come back from a folder and from a bucket, which has them as one object."""

from pathlib import Path

from mlhf_service.networks.service import GRAPH, WEIGHTS, files_of
from mlhf_service.storage.protocol import Storage


def test_the_files_come_back(store: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "sent"
    folder.mkdir()
    (folder / GRAPH).write_bytes(b"{}")
    (folder / WEIGHTS).write_bytes(b"numbers")
    store.put_folder("networks/net_1", folder)
    graph, weights = files_of(store, "networks/net_1", weights=True)
    assert graph.read_bytes() == b"{}"
    assert weights is not None
    assert weights.read_bytes() == b"numbers"
    assert files_of(store, "networks/net_1", weights=False)[1] is None
