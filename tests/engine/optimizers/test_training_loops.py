"""Habits of training loops: each works exactly, or is an error that names cause and remedy."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mlhf import MLHF, HessianFree
from mlhf.curvature.errors import CurvatureError
from mlhf.optimizers.first_order.first_order import sgd
from mlhf.optimizers.kfac.kfac import Kfac
from mlhf.optimizers.l2l import L2L
from mlhf.optimizers.mlhf.paper import compiled
from mlhf.optimizers.params import SGDParams
from tests.engine.optimizers.loops import OPTIMIZERS, batch, losses, network, theta

every = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


@pytest.fixture(scope="module")
def plain():
    """The losses and the end of plain training, by optimizer."""
    ends = {}
    for name, make in OPTIMIZERS.items():
        model = network()
        ends[name] = losses(make(model), *batch()), theta(model)
    return ends


def _name(make):
    return next(name for name, each in OPTIMIZERS.items() if each is make)


class _Checkpointed(nn.Module):
    def __init__(self, use_reentrant):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 8)
        )
        self.head = nn.Linear(8, 3)
        self._use_reentrant = use_reentrant

    def forward(self, x):
        if self._use_reentrant is None:
            return self.head(self.body(x))
        return self.head(checkpoint(self.body, x, use_reentrant=self._use_reentrant))


@every
def test_activation_checkpointing_changes_no_bit(make):
    ends = []
    for use_reentrant in (False, None):
        model = _Checkpointed(use_reentrant)
        torch.manual_seed(1)
        ends.append((losses(make(model), *batch(), steps=3), theta(model)))
        if make is not Kfac:  # where torch itself lets batch norm see each batch twice
            assert int(model.body[1].num_batches_tracked) == 3
    assert ends[0][0] == ends[1][0]
    assert torch.equal(ends[0][1], ends[1][1])


@every
@pytest.mark.parametrize("before", [False, True], ids=["first", "after other parameters"])
def test_reentrant_checkpoints_are_refused_by_name(make, before):
    """They would hide the parameters in them; torch says so only where others come before."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.body = nn.Linear(6, 6), _Checkpointed(True)

        def forward(self, x):
            return self.body(self.table(x) if before else x)

    x, y = batch()
    model = Net()
    model.table.requires_grad_(before)
    with pytest.raises(CurvatureError, match="use_reentrant=False"):
        make(model).step(x.requires_grad_(), y)


@every
def test_autocast_around_the_whole_loop_sees_new_parameters(make, plain):
    model = network()
    optimizer = make(model)
    x, y = batch()
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(optimizer, x, y)
        inside = model(x)
    assert found == pytest.approx(plain[_name(make)][0], abs=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(inside, model(x))


class _Mixed(nn.Module):
    """A body of low precision and a head of float32."""

    def __init__(self, dtype):
        super().__init__()
        self.body, self.act, self.head = network()
        self.body.to(dtype)

    def forward(self, x):
        return self.head(self.act(self.body(x.to(self.body.weight.dtype))).float())


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mixed", [False, True], ids=["whole", "body"])
def test_parameters_of_low_precision_train_as_others_do(make, dtype, mixed, plain):
    model = _Mixed(dtype) if mixed else network().to(dtype)
    x, y = batch()
    found = losses(make(model), x if mixed else x.to(dtype), y)
    assert found == pytest.approx(plain[_name(make)][0], abs=0.02)


@every
def test_calls_by_keyword_and_inputs_in_dicts_change_no_bit(make, plain):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.act, self.head = network()

        def forward(self, inputs):
            return self.head(input=self.act(self.body(input=inputs["x"])))

    model = Net()
    x, y = batch()
    assert losses(make(model), {"x": x, "name": "other things too"}, y) == plain[_name(make)][0]
    assert torch.equal(theta(model), plain[_name(make)][1])


@every
@pytest.mark.parametrize("convolution", [False, True])
def test_a_sample_alone_is_a_batch_of_one(make, convolution):
    torch.manual_seed(0)
    if convolution:
        alone = nn.Sequential(
            *(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.Flatten(0), nn.Linear(16, 3))
        )
        x = torch.randn(2, 5, 5)
    else:
        alone, x = network(), torch.randn(6)
    alone, x = alone.double(), x.double()  # later steps magnify rounding
    together = copy.deepcopy(alone)
    if convolution:
        together[3] = nn.Flatten()
    y = torch.tensor(1)
    found = losses(make(alone), x, y, steps=2)
    assert found == pytest.approx(losses(make(together), x[None], y[None], steps=2), rel=1e-6)
    torch.testing.assert_close(theta(alone), theta(together), rtol=1e-4, atol=1e-6)


@every
def test_an_empty_batch_is_refused_and_leaves_no_trace(make, plain):
    model = network()
    optimizer = make(model)
    x, y = batch()
    found = losses(optimizer, x, y, steps=3)
    with pytest.raises(CurvatureError, match="the batch is empty"):
        optimizer.step(x[:0], y[:0])
    assert found + losses(optimizer, x, y, steps=5) == plain[_name(make)][0]


@every
def test_parameters_of_two_precisions_train_as_others_do_or_are_refused(make, plain):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.act, self.head = network()
            self.head.double()

        def forward(self, x):
            return self.head(self.act(self.body(x)).double())

    if make is MLHF:
        with pytest.raises(CurvatureError, match=r"of float32, float64.*model\.double\(\)"):
            make(Net())
        return
    assert losses(make(Net()), *batch()) == pytest.approx(plain[_name(make)][0], abs=0.01)


@every
def test_an_expert_may_get_no_rows(make):
    """A layer that is called with an empty input, among others that are not."""

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(network() for _ in range(3))

        def forward(self, x):
            which = (x[:, 0] > 0).long()  # never the third
            out = x.new_zeros(len(x), 3)
            for i, expert in enumerate(self.experts):
                rows = (which == i).nonzero().squeeze(1)
                out = out.index_add(0, rows, expert(x[rows]))
            return out

    found = losses(make(Experts()), *batch())
    assert found[-1] < found[0]


@every
def test_a_copy_or_a_pickle_of_model_and_optimizer_goes_on_bit_for_bit(make):
    model = network()
    optimizer = make(model)
    x, y = batch()
    losses(optimizer, x, y, steps=4)
    pairs = [
        (model, optimizer),
        copy.deepcopy((model, optimizer)),
        pickle.loads(pickle.dumps((model, optimizer))),
    ]
    found = [losses(each, x, y, steps=3) for _, each in pairs]
    assert found[0] == found[1] == found[2]
    assert torch.equal(theta(pairs[0][0]), theta(pairs[1][0]))
    assert torch.equal(theta(pairs[0][0]), theta(pairs[2][0]))


@every
def test_a_module_cast_after_the_first_step_takes_the_state_along(make, plain):
    model = network()
    optimizer = make(model)
    x, y = batch()
    found = losses(optimizer, x, y, steps=3)
    model.double()
    found += losses(optimizer, x.double(), y, steps=5)
    assert found == pytest.approx(plain[_name(make)][0], rel=1e-3)
    assert theta(model).dtype == torch.float64


@every
@pytest.mark.parametrize("way", ["whole", "in place", "a part", "a function"])
def test_compiled_models_train_as_they_were_written(make, way, plain):
    class WithFunction(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()
            self.run = torch.compile(self.inner.forward, backend="aot_eager")

        def forward(self, x):
            return self.run(x)

    model = network()
    x, y = batch()
    if way == "whole":
        model = torch.compile(model, backend="aot_eager")
    elif way == "in place":
        model.compile(backend="aot_eager")
    elif way == "a part":
        model[0].compile(backend="aot_eager")
    else:
        model = WithFunction()
    model(x)  # compiled by now
    assert losses(make(model), x, y) == plain[_name(make)][0]
    assert torch._dynamo.eval_frame._stance.stance == "default"


@every
def test_under_inference_mode_the_error_names_it(make):
    model = network()
    optimizer = make(model)
    with torch.inference_mode(), pytest.raises(CurvatureError, match="inference_mode"):
        optimizer.step(*batch())


@every
def test_batches_made_in_inference_mode_are_batches(make, plain):
    with torch.inference_mode():
        x, y = batch()
    assert losses(make(network()), x, y) == plain[_name(make)][0]


@every
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_no_grad_anomaly_mode_and_hooks_that_read_change_no_bit(make, plain):
    model = network()
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append("forward"))
    model[2].register_full_backward_hook(lambda *_: seen.append("backward"))
    model[0].weight.register_hook(lambda _: seen.append("parameter"))
    with torch.no_grad(), torch.autograd.detect_anomaly(check_nan=False):
        assert losses(make(model), *batch()) == plain[_name(make)][0]
    assert {"forward", "backward", "parameter"} == set(seen)


def test_steps_in_eval_mode_are_refused_and_its_state_is_right():
    model = network()
    optimizer = MLHF(model)
    x, y = batch()
    losses(optimizer, x, y, steps=4)
    optimizer.eval_mode()
    averaged = theta(model)
    with pytest.raises(CurvatureError, match=r"train_mode\(\)"):
        optimizer.step(x, y)
    assert torch.equal(theta(model), averaged)

    other = network()
    other.load_state_dict(copy.deepcopy(model.state_dict()))  # the averaged weights
    restored = MLHF(other)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with pytest.raises(CurvatureError, match=r"train_mode\(\)"):
        restored.step(x, y)
    restored.train_mode()
    optimizer.train_mode()
    assert torch.equal(theta(model), theta(other))
    assert losses(optimizer, x, y, steps=3) == losses(restored, x, y, steps=3)


def test_the_average_of_weights_of_low_precision_moves():
    model = network().bfloat16()
    optimizer = MLHF(model, average=1.0)
    x, y = batch()
    thetas = []
    for _ in range(30):
        optimizer.step(x.bfloat16(), y)
        thetas.append(theta(model).float())
    optimizer.eval_mode()
    mean = thetas[0]
    for k, each in enumerate(thetas[1:], 2):
        mean = mean + (each - mean) / (1 + k)
    torch.testing.assert_close(theta(model).float(), mean, rtol=1e-2, atol=1e-3)


def _l2l(model):
    return L2L(model, meta_checkpoint=None)


def _sgd(model):
    return sgd(model, "cross_entropy", SGDParams(lr=0.3), 0)


@pytest.mark.parametrize("make", [_l2l, _sgd])
def test_first_order_steps_under_autocast_see_new_parameters_too(make):
    x, y = batch()
    plain = losses(make(network()), x, y)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(make(network()), x, y)
    assert found == pytest.approx(plain, abs=0.02)
    assert len(set(found)) > 1


def test_l2l_refuses_reentrant_checkpoints_by_name_too():
    x, y = batch()
    with pytest.raises(CurvatureError, match="use_reentrant=False"):
        _l2l(_Checkpointed(True)).step(x.requires_grad_(), y)


def test_gradients_of_sparse_embeddings_are_gradients():
    ends = []
    for sparse in (False, True):
        for make in (Kfac, HessianFree, MLHF):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Embedding(9, 6, sparse=sparse), nn.Linear(6, 3))
            ends.append(losses(make(model), torch.arange(32) % 9, batch()[1], steps=3))
    assert ends[:3] == ends[3:]


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy"])
@pytest.mark.parametrize("fisher", ["sampled", "exact", "empirical"])
def test_kfac_takes_outputs_of_one_value_a_row_with_or_without_an_axis_for_it(loss, fisher):
    x, y = batch()
    y = (y > 0).float()
    ends = []
    for flat in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
        if flat:
            model.append(nn.Flatten(0))
        ends.append(losses(Kfac(model, loss, fisher=fisher), x, y if flat else y[:, None]))
    assert ends[0] == pytest.approx(ends[1], rel=1e-5)


def test_a_copy_leaves_compiled_graphs_behind(monkeypatch):
    monkeypatch.setattr(compiled, "_inductor", lambda traced, tensors: lambda *t: traced(*t))
    model = network()
    optimizer = MLHF(model, variant="paper", compile=True)
    x, y = batch()
    losses(optimizer, x, y, steps=2)
    assert optimizer.path == "compiled"
    other_model, other = pickle.loads(pickle.dumps((model, optimizer)))
    assert losses(other, x, y, steps=2) == losses(optimizer, x, y, steps=2)
    assert other.path == "compiled"
    assert torch.equal(theta(model), theta(other_model))


def test_schedule_free_refuses_steps_and_states_in_eval_mode():
    pytest.importorskip("schedulefree")
    from mlhf.optimizers.first_order.schedule_free import build
    from mlhf.optimizers.params import ScheduleFreeParams

    model = network()
    optimizer = build(model, "cross_entropy", ScheduleFreeParams(), 0)
    optimizer.step(*batch())
    optimizer.eval_mode()
    with pytest.raises(CurvatureError, match=r"a step in eval_mode.*train_mode\(\)"):
        optimizer.step(*batch())
    with pytest.raises(CurvatureError, match=r"a state in eval_mode.*train_mode\(\)"):
        optimizer.state_dict()
    optimizer.train_mode()
    optimizer.step(*batch())


class WithEmptyParameters(nn.Module):
    """Some parameters have no element, as of experts or heads that a configuration leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
        self.nothing = nn.Parameter(torch.zeros(0))
        self.rows, self.stack = nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.zeros(2, 0, 3))
        self.without_outputs = nn.Linear(5, 0)
        self.unused = nn.Embedding(0, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.first(x))
        return self.last(h) + self.without_outputs(h).sum() + self.rows.sum() + self.nothing.sum()


@every
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_parameters_without_elements_are_no_obstacle(make):
    torch.manual_seed(0)
    found = losses(
        make(WithEmptyParameters()), torch.randn(12, 6), torch.randint(3, (12,)), steps=6
    )
    assert found[-1] < found[0]
