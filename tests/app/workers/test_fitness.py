"""Unfit workers claim nothing, are checked again ever more rarely, and recover by themselves."""

from pathlib import Path
from typing import Any

import pytest

from mlhf_service.workers import selfcheck
from mlhf_service.workers.fitness import Fitness


class Machine:
    """A clock, and what its checks find."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wrong: str | None = None
        self.deeply_wrong: str | None = None
        self.thorough_checks = 0

    def thorough(self) -> str | None:
        self.thorough_checks += 1
        return self.deeply_wrong

    def fitness(self) -> Fitness:
        return Fitness([lambda: self.wrong], self.thorough, clock=lambda: self.now)

    def seconds_until_fit(self, fitness: Fitness) -> float:
        began = self.now
        while fitness.check() is not None:
            self.now += 0.5
        return self.now - began


def test_a_fault_is_found_and_its_end_too() -> None:
    machine = Machine()
    fitness = machine.fitness()
    assert fitness.check() is None
    machine.wrong, machine.now = "no room", 10.0
    assert (fitness.check(), fitness.reason) == ("no room", "no room")
    machine.wrong = None
    assert machine.seconds_until_fit(fitness) <= 2.0
    assert machine.thorough_checks == 0


def test_a_suspect_is_checked_thoroughly_and_waits_longer_each_time() -> None:
    machine = Machine()
    fitness = machine.fitness()
    waits = []
    for number in range(8):
        fitness.suspect("its GPU failed a run", f"run_{number}")
        assert fitness.check() == "its GPU failed a run"
        waits.append(machine.seconds_until_fit(fitness))
    assert waits[:4] == [2.0, 4.0, 8.0, 16.0]
    assert waits[-1] == 120.0
    assert machine.thorough_checks == 8
    fitness.trust()
    for _ in range(3):
        fitness.suspect("again", "run_1")
        assert machine.seconds_until_fit(fitness) == 2.0, "one run alone speaks against itself"


def test_a_suspect_stays_unfit_while_the_thorough_check_fails() -> None:
    machine = Machine()
    fitness = machine.fitness()
    machine.deeply_wrong = "CUDA does not answer"
    fitness.suspect("its GPU failed a run", "run_1")
    machine.now = 2.0
    assert fitness.check() == "CUDA does not answer"
    machine.now = 6.0
    assert fitness.check() == "CUDA does not answer"
    machine.deeply_wrong = None
    assert machine.seconds_until_fit(fitness) <= 8.0


def test_a_device_is_asked_before_the_first_claim_where_one_may_fail() -> None:
    machine = Machine()
    machine.deeply_wrong = "CUDA does not answer"
    fitness = Fitness([], machine.thorough, suspected=True, clock=lambda: machine.now)
    assert fitness.check() == "CUDA does not answer"
    machine.deeply_wrong = None
    assert machine.seconds_until_fit(fitness) <= 4.0


def test_the_device_of_this_machine_computes() -> None:
    told: dict[str, Any] = {}
    assert selfcheck.DeviceCheck("cpu", told.update)() is None
    assert told == {"type": "cpu"}


def test_a_device_that_fails_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    told: dict[str, Any] = {}
    reason = selfcheck.DeviceCheck("gpu", told.update)()
    assert reason is not None
    assert "device cuda does not answer" in reason or "GPU" in reason
    assert (told, "Traceback" in reason) == ({}, False)


def test_a_folder_is_checked_by_writing_to_it(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "spool"
    assert selfcheck.check_folder("spool", folder, 1) is None
    assert list(folder.iterdir()) == []
    assert "Make room" in str(selfcheck.check_folder("spool", folder, 2**62))
    (tmp_path / "file").write_text("")
    assert "Not a directory" in str(selfcheck.check_folder("spool", tmp_path / "file" / "x", 1))

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    assert selfcheck.check_folder("spool", folder, 1) == (
        "The disk of its spool folder is full. Make room there."
    )
