"""MLHF's steps against section 3 done densely, its state, and what it starts from."""

import copy
from collections import Counter

import pytest
import torch

from mlhf import MetaCheckpoint
from mlhf.core.errors import DataError
from mlhf.curvature.errors import CurvatureError
from mlhf.optimizers.learned.kinds import by_kind
from mlhf.optimizers.learned.meta_checkpoint import load_meta_checkpoint
from mlhf.optimizers.mlhf.kernels.vectors import FusedVectors
from mlhf.optimizers.mlhf.paper.optimizer import PaperMLHF, fresh_networks
from mlhf.training import checkpoint
from tests.engine.curvature.cases import Custom, SineCut
from tests.engine.optimizers.mlhf import dense
from tests.engine.optimizers.mlhf.conftest import Tanh, loud


def _loud_checkpoint(**lineage):
    weights = {name: dict(loud(i).state_dict()) for i, name in enumerate(fresh_networks())}
    return MetaCheckpoint("mlhf_paper", weights, lineage)


def _batches(count, dtype=torch.float32):
    generator = torch.Generator().manual_seed(4)
    return [
        (
            torch.randn(8, 2, 5, generator=generator).to(dtype),
            torch.randint(0, 3, (8,), generator=generator),
        )
        for _ in range(count)
    ]


def _flat(model):
    return torch.cat([p.detach().reshape(-1) for p in by_kind(model)[0]])


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_the_definition(decay):
    torch.manual_seed(0)
    model = Tanh().double()
    plain = copy.deepcopy(model)
    parameters, segments = by_kind(plain)
    kinds = [s.kind for s in segments for _ in range(s.end - s.start)]
    assert set(kinds) == set(range(6))
    unpack = dense.flat_function(plain, parameters)
    networks = {name: loud(i, torch.float64) for i, name in enumerate(fresh_networks())}
    theta = _flat(model)
    d = r = torch.zeros_like(theta)
    states = dense.zero_states(len(theta))
    optimizer = PaperMLHF(model, meta_checkpoint=_loud_checkpoint(), weight_decay=decay, lr=0.5)
    with torch.no_grad():
        for x, y in _batches(3, torch.float64):
            loss, b, matrix = dense.gradient_and_matrix(plain, unpack, theta, x, y)
            b, matrix = b + decay * theta, matrix + decay * torch.eye(len(theta)).double()
            d, r, states, _ = dense.direction(matrix, b, d, r, states, networks, kinds)
            theta = theta - 0.5 * d
            result = optimizer.step(x, y)
            assert torch.allclose(result.loss, loss, rtol=1e-12)
            assert torch.allclose(result.stats["cg_residual"], r.norm() / b.norm(), rtol=1e-8)
            assert torch.allclose(_flat(model), theta, rtol=1e-9, atol=1e-11)


def test_single_precision_with_the_kernel_follows_double():
    torch.manual_seed(0)
    model = Tanh()
    exact = copy.deepcopy(model).double()
    single, double = (PaperMLHF(m, meta_checkpoint=_loud_checkpoint()) for m in (model, exact))
    for x, y in _batches(10):
        single.step(x, y)
        double.step(x.double(), y)
    assert torch.allclose(_flat(model).double(), _flat(exact), atol=2e-4)


def test_interrupted_and_restored_equals_undisturbed(tmp_path):
    torch.manual_seed(0)
    model = Tanh()
    optimizer = PaperMLHF(model, meta_checkpoint=_loud_checkpoint())
    batches = _batches(10)
    for x, y in batches[:5]:
        optimizer.step(x, y)
    tree = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save(tmp_path / "c.safetensors", tree)
    for x, y in batches[5:]:
        optimizer.step(x, y)
    other = Tanh()
    restored = PaperMLHF(other, meta_checkpoint=None)  # the weights come with the state
    state = checkpoint.load(tmp_path / "c.safetensors")
    other.load_state_dict(state["model"])
    restored.load_state_dict(state["optimizer"])
    for x, y in batches[5:]:
        restored.step(x, y)
    assert torch.equal(_flat(other), _flat(model))


def test_the_state_follows_the_model():
    """To another precision here, as there is one device; to a device it is the same move."""
    torch.manual_seed(0)
    model = Tanh()
    optimizer = PaperMLHF(model, meta_checkpoint=_loud_checkpoint())
    batches = _batches(3)
    optimizer.step(*batches[0])
    model.double()
    optimizer.step(batches[1][0].double(), batches[1][1])
    assert all(v.dtype == torch.float64 for v in optimizer.state_dict()["state"].values())
    assert bool(torch.isfinite(_flat(model)).all())
    if torch.cuda.is_available():
        model.cuda()
        optimizer.step(batches[2][0].double().cuda(), batches[2][1].cuda())
        assert all(v.is_cuda for v in optimizer.state_dict()["state"].values())


def test_the_state_is_34_numbers_a_parameter():
    model = Tanh()
    optimizer = PaperMLHF(model, meta_checkpoint=None)
    optimizer.step(*_batches(1)[0])
    state = optimizer.state_dict()["state"]
    assert sum(v.numel() for v in state.values()) == 34 * _flat(model).numel()


def test_gradient_costs_one_pass_and_a_step_five_products(monkeypatch):
    from mlhf.curvature.ggn import GGN

    calls = Counter()
    product = GGN.product
    monkeypatch.setattr(GGN, "product", lambda s, v: calls.update(["p"]) or product(s, v))
    model = Tanh()
    passes = Counter()
    model.register_forward_hook(lambda *_: passes.update(["f"]))
    optimizer = PaperMLHF(model, meta_checkpoint=None)
    for x, y in _batches(3):
        optimizer.step(x, y)
    assert calls["p"] == 15
    assert passes["f"] == 3


@pytest.mark.parametrize(
    ("kernel", "dtype", "fused"),
    [
        ("auto", torch.float32, True),
        ("cpp", torch.float32, True),
        ("torch", torch.float32, False),
        ("auto", torch.float64, False),
    ],
)
def test_the_vector_work_is_fused_where_it_can_be(kernel, dtype, fused, monkeypatch):
    if not FusedVectors.can(torch.zeros(1)):
        pytest.skip("no compiler")
    calls = Counter()
    for name in ("begin", "move", "update_direction"):
        own = getattr(FusedVectors, name)
        monkeypatch.setattr(
            FusedVectors, name, lambda *a, name=name, own=own: calls.update([name]) or own(*a)
        )
    optimizer = PaperMLHF(Tanh().to(dtype), meta_checkpoint=None, kernel=kernel, iterations=3)
    optimizer.step(*_batches(1, dtype)[0])
    assert calls == (Counter(begin=1, move=3, update_direction=2) if fused else Counter())


def test_a_backward_that_cannot_be_differentiated_is_refused_at_the_first_step():
    """Though the first product there is with zeros."""
    torch.manual_seed(0)
    optimizer = PaperMLHF(Custom(SineCut), meta_checkpoint=None)
    with pytest.raises(CurvatureError, match="would be wrong"):
        optimizer.step(torch.randn(5, 6), torch.randint(0, 3, (5,)))


def test_a_meta_checkpoint_survives_its_file(tmp_path):
    made = _loud_checkpoint(seed=3, kinds=[0, 1, 2, 3, 4, 5])
    written = made.save(tmp_path / "m.safetensors")
    assert written.size < 2**20
    loaded = load_meta_checkpoint(tmp_path / "m.safetensors", "mlhf_paper")
    assert loaded.lineage == made.lineage
    for name, values in made.weights.items():
        assert all(torch.equal(loaded.weights[name][k], v) for k, v in values.items())
    PaperMLHF(Tanh(), meta_checkpoint=tmp_path / "m.safetensors").step(*_batches(1)[0])


def test_kinds_that_were_never_trained_get_the_nearest_ones_weights():
    networks = fresh_networks()
    made = _loud_checkpoint(kinds=[2, 3])
    made.into(networks)
    w, trained = networks["damping"].w1, made.weights["damping"]["w1"]
    for kind, source in ((0, 2), (1, 3), (2, 2), (3, 3), (4, 2), (5, 3)):
        assert torch.equal(w[kind], trained[source])


def test_what_is_no_meta_checkpoint_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"nothing")
    checkpoint.save(tmp_path / "b", {"x": torch.zeros(1)})
    MetaCheckpoint("l2l", {}, {}).save(tmp_path / "c")
    MetaCheckpoint("mlhf_paper", {"damping": {"w1": torch.zeros(2)}}, {}).save(tmp_path / "d")
    for name in "abcde":
        with pytest.raises(DataError):
            PaperMLHF(Tanh(), meta_checkpoint=str(tmp_path / name))


def test_the_default_is_there_with_its_lineage():
    lineage = load_meta_checkpoint("default", "mlhf_paper").lineage
    assert lineage["iterations"] > 100
    assert set(lineage["kinds"]) == set(range(6))
    assert all(len(t["data_digest"]) == 64 for t in lineage["config"]["tasks"])
    text = str(lineage)
    assert "fashion" not in text
    assert "root" not in text


def test_by_name_the_networks_may_be_untrained_or_a_files(tmp_path):
    from mlhf.optimizers.registry import build

    made = _loud_checkpoint()
    made.save(tmp_path / "m.safetensors")
    found = {}
    for name in ("default", "none", str(tmp_path / "m.safetensors")):
        optimizer = build("mlhf", {"variant": "paper", "meta_checkpoint": name}, Tanh())
        found[name] = optimizer.state_dict()["inner"]["networks"]["damping"]["w1"].clone()
    assert torch.equal(found["none"], fresh_networks()["damping"].w1)
    assert torch.equal(found[str(tmp_path / "m.safetensors")], made.weights["damping"]["w1"])
    assert not torch.equal(found["default"], found["none"])


def test_a_model_without_parameters_is_refused():
    from mlhf.curvature.errors import CurvatureError

    with pytest.raises(CurvatureError):
        PaperMLHF(torch.nn.ReLU(), meta_checkpoint=None)


@pytest.mark.parametrize("size", [3, 8])
def test_micro_batches_take_the_whole_batchs_steps(size):
    torch.manual_seed(0)
    model = Tanh().double().eval()  # batch norm would see each microbatch by itself
    other = copy.deepcopy(model)
    whole = PaperMLHF(model, meta_checkpoint=_loud_checkpoint())
    split = PaperMLHF(other, meta_checkpoint=_loud_checkpoint(), micro_batch=size)
    for x, y in _batches(4, torch.float64):
        assert torch.allclose(whole.step(x, y).loss, split.step(x, y).loss, rtol=1e-12)
    assert torch.allclose(_flat(model), _flat(other), rtol=1e-9, atol=1e-11)
