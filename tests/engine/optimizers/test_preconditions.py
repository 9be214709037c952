"""What is refused when an optimizer is made, and before a step."""

import math

import pytest
import torch
from torch import nn

from mlhf import MLHF, HessianFree
from mlhf.curvature.errors import CurvatureError
from mlhf.optimizers.damping import AdamDamping
from tests.engine.optimizers.loops import OPTIMIZERS, batch, losses, network

every = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


@pytest.fixture
def group(tmp_path):
    """A process group of one process."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@every
def test_data_parallel_is_refused_by_name(make):
    with pytest.raises(CurvatureError, match=r"DataParallel.*model\.module"):
        make(nn.DataParallel(network()))


@every
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_distributed_wrappers_are_refused_by_name(make, group):
    wrapped = nn.parallel.DistributedDataParallel(network())
    for model in (wrapped, nn.Sequential(wrapped)):
        with pytest.raises(CurvatureError, match=r"DistributedDataParallel.*model\.module"):
            make(model)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_fully_sharded_models_are_refused_by_name(group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(CurvatureError, match=r"FSDPModule.*fully_shard"):
        HessianFree(model)


@every
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_model_is_refused_but_not_within_another(make):
    scripted = torch.jit.script(network())
    with pytest.raises(CurvatureError, match=r"ScriptModule.*of your own that calls"):
        make(scripted)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scripted = scripted

        def forward(self, x):
            return self.scripted(x)

    model = Own()
    # Torch exchanges a scripted function after it has run a few times.
    assert all(map(math.isfinite, losses(make(model), *batch())))


@every
def test_complex_parameters_are_refused_by_name(make):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 3, dtype=torch.complex64))

        def forward(self, x):
            return (x.to(self.w.dtype) @ self.w).abs()

    with pytest.raises(CurvatureError, match=r"w is complex.*view_as_complex"):
        make(Net())


@every
def test_models_without_values_or_made_in_inference_mode_are_refused(make):
    with torch.device("meta"):
        model = network()
    with pytest.raises(CurvatureError, match=r"0\.weight is on the meta device.*to_empty"):
        make(model)
    with torch.inference_mode():
        model = network()
    with pytest.raises(CurvatureError, match=r"0\.weight was made under torch\.inference_mode"):
        make(model)


def test_parameters_on_several_devices_are_refused():
    model = network()
    model[2].to("meta")
    with pytest.raises(CurvatureError, match=r"0\.weight on cpu, 2\.weight on meta"):
        MLHF(model)


def test_parameters_that_are_not_the_models_are_refused():
    with pytest.raises(CurvatureError, match=r"\(2, 2\), belong to no module"):
        HessianFree(network(), parameters=[torch.zeros(2, 2, requires_grad=True)])


@every
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[0].weight.requires_grad_(False), r"0\.weight no longer requires a gradient"),
        (lambda m: m[0].bias.requires_grad_(True), r"0\.bias requires a gradient but would not"),
        (lambda m: m.append(nn.Linear(3, 3)), r"3\.weight requires a gradient but would not"),
        (lambda m: m.__setitem__(2, nn.Linear(8, 3)), r"\(3, 8\) was replaced"),
    ],
    ids=["frozen", "unfrozen", "added", "replaced"],
)
def test_a_change_of_what_is_trained_is_refused_and_undone_goes_on(make, change, message):
    model = network()
    model[0].bias.requires_grad_(False)
    optimizer = make(model)
    x, y = batch()
    losses(optimizer, x, y, steps=2)
    last = model[2]
    change(model)
    with pytest.raises(CurvatureError, match=message + r".*make a new optimizer"):
        optimizer.step(x, y)
    if len(model) > 3:
        del model[3]
    model[2] = last
    model[0].weight.requires_grad_(True)
    model[0].bias.requires_grad_(False)
    losses(optimizer, x, y, steps=2)


def test_chosen_parameters_leave_the_others_to_the_caller():
    model = network()
    optimizer = HessianFree(model, parameters=iter(list(model[2].parameters())))
    x, y = batch()
    optimizer.step(x, y)
    model[0].requires_grad_(False)
    optimizer.step(x, y)
    model[2].bias.requires_grad_(False)
    with pytest.raises(CurvatureError, match=r"2\.bias no longer"):
        optimizer.step(x, y)


@pytest.mark.filterwarnings("ignore:Dynamo does not know")
def test_a_step_within_a_compiled_function_is_refused_by_name():
    optimizer = HessianFree(network())
    x, y = batch()
    step = torch.compile(lambda: optimizer.step(x, y).loss, backend="eager")
    with pytest.raises(CurvatureError, match="compile the model alone"):
        step()
    torch._dynamo.reset()
    optimizer.step(x, y)


class _InPlace(AdamDamping):
    """Changes its state in place, as an update is first written."""

    def __init__(self, where):
        super().__init__()
        self.where, self.seen = where, torch.zeros(())

    def update(self, gradient):
        if self.where == "update":
            self.seen.add_(1)
        return super().update(gradient)

    def adapt(self, actual, predicted):
        if self.where == "adapt":
            self.seen.add_(1)
        return actual / predicted

    def state_dict(self):
        return {**super().state_dict(), "seen": self.seen}


@pytest.mark.parametrize("where", ["update", "adapt"])
def test_a_damping_that_changes_its_state_in_place_is_refused_by_name(where):
    optimizer = HessianFree(network(), damping=_InPlace(where))
    with pytest.raises(CurvatureError, match=r"_InPlace changed its state 'seen' in place"):
        optimizer.step(*batch())


def test_a_damping_that_replaces_its_state_is_taken():
    optimizer = HessianFree(network(), damping=_InPlace("nowhere"))
    assert optimizer.step(*batch()).loss.isfinite()
