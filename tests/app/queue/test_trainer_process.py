"""What trainer processes leave behind, and what they are started with."""

import os
from pathlib import Path

from mlhf_service.queue.trainer_process import TrainerProcess, prune_logs


def test_only_the_newest_logs_are_kept(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / f"run-{number}.log"
        path.write_text("a warning")
        os.utime(path, (number, number))
    (tmp_path / "notes.txt").write_text("not a log")
    prune_logs(tmp_path, keep=3)
    assert {path.name for path in tmp_path.iterdir()} == {
        "run-7.log",
        "run-8.log",
        "run-9.log",
        "notes.txt",
    }
    prune_logs(tmp_path / "missing")


def test_what_a_trainer_printed_is_kept_when_its_folder_is_removed(tmp_path: Path) -> None:
    for name, text in (("silent", ""), ("talking", "a warning")):
        folder = tmp_path / "spool" / name
        folder.mkdir(parents=True)
        trainer = TrainerProcess(folder, tmp_path / f"{name}.log")
        trainer.log_path.write_text(text)
        trainer.remove()
        assert not folder.exists()
    assert [path.name for path in tmp_path.glob("*.log")] == ["talking.log"]
