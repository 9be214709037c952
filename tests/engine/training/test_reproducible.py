"""The settings of a run: numbers too small to be normal are zero in it, and not afterwards."""

import subprocess
import sys

import pytest
import torch

from mlhf.training.reproducible import flushes_denormals, reproducible

CPU = torch.device("cpu")


@pytest.mark.parametrize("before", [False, True])
def test_numbers_below_the_normal_ones_are_zero_inside_and_as_before_outside(before):
    torch.set_flush_denormal(before)
    try:
        with reproducible(None, CPU):
            assert flushes_denormals()
            assert not (torch.full((8,), 1.5e-38) * 0.5).any()
        assert flushes_denormals() == before
        with pytest.raises(KeyError), reproducible(None, CPU):
            raise KeyError
        assert flushes_denormals() == before
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.slow
def test_the_pools_threads_take_them_as_zero_too():
    program = (
        "import torch; from mlhf.training.reproducible import reproducible\n"
        "with reproducible(2, torch.device('cpu')):\n"
        "    print(int((torch.full((1_000_000,), 1.5e-38) * 0.5).count_nonzero()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "0", run.stderr


def test_threads_algorithms_and_random_state_are_as_before():
    torch.manual_seed(5)
    threads, expected = torch.get_num_threads(), torch.get_rng_state()
    with reproducible(threads + 1, CPU):
        assert torch.get_num_threads() == threads + 1
        assert torch.are_deterministic_algorithms_enabled()
        torch.rand(3)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), expected)


def test_torchs_compiler_is_not_imported_for_it():
    program = (
        "import sys, torch; from mlhf.training.reproducible import reproducible\n"
        "with reproducible(1, torch.device('cpu')):\n"
        "    assert torch.are_deterministic_algorithms_enabled()\n"
        "sys.exit('torch._inductor' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
