"""The compiled step: equal to the eager one, or eager with the reason said."""

import copy
import logging
import shutil

import pytest
import torch
from torch import nn

from mlhf.curvature.errors import CurvatureError
from mlhf.optimizers.mlhf.paper import compiled
from mlhf.optimizers.mlhf.paper.optimizer import PaperMLHF
from tests.engine.optimizers.mlhf.conftest import Tanh, loud


@pytest.fixture
def traced_only(monkeypatch):
    """The traced graph runs as it is: all but the compiler is under test, in a second."""
    monkeypatch.setattr(compiled, "_inductor", lambda traced, tensors: traced)


def _batches(count, size=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(4)
    return [
        (
            torch.randn(size, 2, 5, generator=generator).to(dtype),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def _pair(model, **options):
    """An eager optimizer and a compiled one, each with a model of its own."""
    torch.manual_seed(0)
    models = model, copy.deepcopy(model)
    eager, fast = (
        PaperMLHF(m, meta_checkpoint=None, compile=c, **options)
        for m, c in zip(models, (False, True), strict=True)
    )
    for name, network in eager.networks.items():
        network.load_state_dict(loud(len(name)).state_dict())
    fast.load_state_dict(eager.state_dict())
    return eager, fast


def _apart(eager, fast):
    """The largest difference of parameters, buffers and states."""
    pairs = [
        *zip(eager.model.state_dict().values(), fast.model.state_dict().values(), strict=True),
        *((v, fast.state_dict()["state"][name]) for name, v in eager.state_dict()["state"].items()),
    ]
    return max((a - b).abs().max().item() for a, b in pairs)


def _agree(eager, fast, batches, tolerance=1e-12):
    for x, y in batches:
        one, two = eager.step(x, y), fast.step(x, y)
        assert one.loss.item() == pytest.approx(two.loss.item(), rel=tolerance, abs=tolerance)
        for name, value in one.stats.items():
            assert value.item() == pytest.approx(two.stats[name].item(), rel=1e3 * tolerance)
    assert _apart(eager, fast) < tolerance


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a compiler")
def test_compiled_steps_equal_eager_ones_over_50_steps():
    torch.manual_seed(1)
    eager, fast = _pair(Tanh().double(), lr=0.3)
    _agree(eager, fast, _batches(50, dtype=torch.float64))
    assert fast.path == "compiled"
    assert fast.path_reason == ""
    assert fast.model.norm.num_batches_tracked == 50


@pytest.mark.usefixtures("traced_only")
class TestTraced:
    def test_in_float32_too(self):
        torch.manual_seed(1)
        eager, fast = _pair(Tanh(), lr=0.3)
        _agree(eager, fast, _batches(20), tolerance=1e-5)
        assert fast.path == "compiled"

    @pytest.mark.slow
    def test_settings_weights_and_modes_may_change_between_steps(self):
        eager, fast = _pair(Tanh().double(), weight_decay=0.1)
        batches = iter(_batches(30, dtype=torch.float64))
        _agree(eager, fast, [next(batches)])
        for optimizer in (eager, fast):
            optimizer.lr = 0.25
        _agree(eager, fast, [next(batches)])
        other = Tanh().double().state_dict()
        for optimizer in (eager, fast):
            optimizer.model.load_state_dict(other)
        _agree(eager, fast, [next(batches)])
        for optimizer in (eager, fast):
            optimizer.networks["damping"].load_state_dict(loud(9).state_dict())
        _agree(eager, fast, [next(batches)])
        assert fast.path == "compiled"
        for optimizer in (eager, fast):
            optimizer.model.eval()
        _agree(eager, fast, batches)
        assert fast.path == "compiled"

    @pytest.mark.slow
    def test_a_state_goes_on_in_the_other_form(self):
        eager, fast = _pair(Tanh().double())
        batches = _batches(9, dtype=torch.float64)
        _agree(eager, fast, batches[:3])
        states = [copy.deepcopy(o.state_dict()) for o in (eager, fast)]
        eager.load_state_dict(states[1])
        fast.load_state_dict(states[0])
        _agree(eager, fast, batches[3:6])
        assert fast.path == "compiled"

    @pytest.mark.slow
    def test_a_rare_shape_of_batch_runs_eagerly(self):
        eager, fast = _pair(Tanh().double())
        most, last = _batches(4, dtype=torch.float64), _batches(1, 5, torch.float64)
        _agree(eager, fast, most[:2])
        _agree(eager, fast, last)
        assert (fast.path, fast.path_reason) == ("eager", "this shape of batch is rare so far")
        _agree(eager, fast, most[2:])
        assert fast.path == "compiled"
        _agree(eager, fast, last * compiled._PATIENCE)
        assert fast.path == "compiled"

    def test_several_outputs_and_a_loss_function(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 2)

            def forward(self, x):
                return {"a": torch.tanh(self.a(x)), "b": self.b(x)}

        def loss(z, y):
            return (z["a"] - y).square().mean() + (z["b"] - z["a"][:, :2]).square().mean()

        eager, fast = _pair(Two().double(), loss=loss)
        x, y = torch.randn(6, 4).double(), torch.randn(6, 3).double()
        _agree(eager, fast, [(x, y)] * 3)
        assert fast.path == "compiled"

    def test_it_says_how_steps_run_once(self, caplog):
        _, fast = _pair(Tanh())
        assert (fast.path, fast.path_reason) == ("eager", "no step yet")
        with caplog.at_level(logging.INFO, "mlhf.optimizers.mlhf.paper.compiled"):
            for x, y in (*_batches(2), *_batches(1, 5), *_batches(2), *_batches(1, 5)):
                fast.step(x, y)
        assert [r.getMessage() for r in caplog.records] == [
            "MLHF steps run compiled",
            "MLHF steps run eager: this shape of batch is rare so far",
        ]


class _Counting(Tanh):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * (1 + self.calls)


class _Deciding(Tanh):
    def forward(self, x):
        return super().forward(x) * (2 if x.sum() > 0 else 1)


def _hooked():
    model = Tanh()
    model.dense.register_forward_hook(lambda m, i, o: o * 2)
    return model


class _Dropping(Tanh):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5)


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_Deciding, "cannot be traced"),
        (_hooked, "hooks"),
        (_Dropping, "random numbers"),
    ],
)
def test_what_no_graph_can_take_stays_eager(make, reason):
    eager, fast = _pair(make())
    for x, y in _batches(2):
        torch.manual_seed(7)
        eager.step(x, y)
        torch.manual_seed(7)
        fast.step(x, y)
    assert _apart(eager, fast) == 0
    assert fast.path == "eager"
    assert reason in fast.path_reason


class _DoublingGradients(Tanh):
    def forward(self, x):
        z = super().forward(x)
        z.register_hook(lambda g: 2 * g)
        return z


def _doubled():
    model = Tanh()
    model.dense.weight.register_hook(lambda g: 2 * g)
    return model


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("make", [_DoublingGradients, _doubled])
def test_hooks_that_change_gradients_are_refused_as_eagerly(make):
    fast = PaperMLHF(make(), meta_checkpoint=None, compile=True)
    with pytest.raises(CurvatureError, match="a hook changes gradients"):
        fast.step(*_batches(1)[0])


@pytest.mark.usefixtures("traced_only")
def test_a_model_that_changes_as_it_is_called_stays_eager():
    _, fast = _pair(_Counting())
    fast.step(*_batches(1)[0])
    assert fast.path == "eager"
    assert "does not do the same each time" in fast.path_reason


@pytest.mark.usefixtures("traced_only")
def test_a_batch_that_is_not_finite_leaves_the_state_of_a_compiled_step():
    torch.manual_seed(1)
    eager, fast = _pair(Tanh().double())
    batches = _batches(4, dtype=torch.float64)
    spoiled = (batches[3][0].clone().index_fill_(0, torch.tensor([1]), torch.nan), batches[3][1])
    assert fast.step(*spoiled).skipped == "inputs"
    assert "cannot be compared" in fast.path_reason
    _agree(eager, fast, batches[:2])
    assert fast.path == "compiled"
    before = copy.deepcopy((fast.model.state_dict(), fast.state_dict()["state"]))
    assert fast.step(*spoiled).skipped == "inputs"
    assert fast.path == "compiled"
    after = fast.model.state_dict(), fast.state_dict()["state"]
    for old, new in zip(before, after, strict=True):
        assert all(torch.equal(old[name], new[name]) for name in old)
    _agree(eager, fast, batches[2:])


def _fails(traced, tensors):
    raise RuntimeError("no compiler")


def _wrong(traced, tensors):
    def run(*inputs):
        out = traced(*inputs)
        inputs[0].add_(1)
        return out

    return run


@pytest.mark.parametrize(
    ("compiler", "reason"), [(_fails, "no compiler"), (_wrong, "other numbers")]
)
def test_a_compiler_that_fails_or_errs_leaves_steps_eager(compiler, reason, monkeypatch):
    monkeypatch.setattr(compiled, "_inductor", compiler)
    eager, fast = _pair(Tanh())
    _agree(eager, fast, _batches(2))
    assert fast.path == "eager"
    assert reason in fast.path_reason


@pytest.mark.parametrize(
    "options", [{"micro_batch": 4}, {"curvature_batch": 4}, {"autocast": torch.bfloat16}]
)
def test_batches_in_parts_and_low_precision_are_eager(options):
    eager, fast = _pair(Tanh(), **options)
    _agree(eager, fast, _batches(2))
    assert fast.path == "eager"
    assert "micro_batch" in fast.path_reason


@pytest.mark.gpu
def test_on_a_gpu_the_step_is_a_cuda_graph():
    eager, fast = _pair(Tanh().cuda(), lr=0.3)
    batches = [(x.cuda(), y.cuda()) for x, y in _batches(50)]
    _agree(eager, fast, batches, 1e-4)
    assert fast.path == "cuda_graph"
