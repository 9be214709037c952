"""Process-wide switches: held while any pass runs, and as they were after the last."""

import threading

import torch
from torch import nn

from mlhf import MLHF
from mlhf.curvature.switches import differentiable_twice

_C = torch._C


def _state():
    return (
        _C._get_flash_sdp_enabled(),
        _C._get_mem_efficient_sdp_enabled(),
        _C._get_math_sdp_enabled(),
        _C._get_mkldnn_enabled(),
        _C._get_cudnn_enabled(),
    )


def test_overlapping_passes_leave_the_switches_as_they_were():
    """In the order that restored too early before: the first to begin is the first to end."""
    before = _state()
    assert all(before)
    inside, ended = threading.Event(), threading.Event()
    seen = []

    def longer():
        with differentiable_twice(recurrent=True):
            inside.set()
            assert ended.wait(10)
            seen.append(_state())

    thread = threading.Thread(target=longer)
    with differentiable_twice(recurrent=True):
        thread.start()
        assert inside.wait(10)
    ended.set()
    thread.join()
    assert seen == [(False, False, True, False, False)]
    assert _state() == before


def test_what_the_user_had_turned_off_stays_off():
    _C._set_sdp_use_flash(False)
    try:
        with differentiable_twice(recurrent=False):
            pass
        assert not _C._get_flash_sdp_enabled()
    finally:
        _C._set_sdp_use_flash(True)


def test_three_optimizers_train_at_once_as_they_would_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Embedding(20, 8)
            self.memory = nn.LSTM(8, 8, batch_first=True)
            self.out = nn.Linear(8, 20)

        def forward(self, x):
            return self.out(self.memory(self.table(x))[0])

    def train(model, into):
        optimizer = MLHF(model)
        generator = torch.Generator().manual_seed(1)
        for _ in range(8):
            x = torch.randint(20, (8, 6), generator=generator)
            into.append(float(optimizer.step(x, x).loss))

    before = _state()
    alone, together = [], [[], [], []]
    train(Net(), alone)
    models = [Net() for _ in together]
    threads = [
        threading.Thread(target=train, args=pair) for pair in zip(models, together, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone, alone, alone]
    assert _state() == before
