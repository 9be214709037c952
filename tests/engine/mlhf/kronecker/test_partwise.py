"""What is known of each part of a network, and what the damping makes of it."""

import math

import pytest
import torch
from torch import nn

from engine.mlhf.kronecker.basis import Basis, Part
from engine.mlhf.kronecker.controller import FEATURES, DampingNetwork
from engine.mlhf.kronecker.optimizer import KroneckerMLHF, fresh_networks
from engine.mlhf.kronecker.partwise import PartMemory
from engine.mlhf.meta_checkpoint import MetaCheckpoint
from tests.engine.mlhf.kronecker.small import batches, model_of, theta

PARTS = [Part(4, 2, 1.0, -1.0), Part(2, 4, 1.0, 0.0), Part(3, 3, 1.0, 1.0)]


def _cosine(q, d):
    return sum(a * b for a, b in zip(q, d, strict=True)) / math.sqrt(
        sum(a * a for a in q) * sum(b * b for b in d)
    )


def test_features_are_those_of_running_means_of_cosines_and_lengths():
    torch.manual_seed(0)
    like = torch.zeros(1, dtype=torch.float64)
    memory = PartMemory(PARTS, like)
    cosines, lengths = [0.0] * 3, [0.0] * 3
    for step in range(1, 14):
        q, d = torch.randn(9, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
        memory.add(q, d)
        at, whole = 0, math.sqrt(float(d.square().mean()))
        for i, part in enumerate(PARTS):
            own = slice(at, at + part.size)
            at += part.size
            weight = max(0.1, 1 / step)
            cosine = _cosine(q[own].tolist(), d[own].tolist())
            length = math.log(math.sqrt(float(d[own].square().mean())) / whole)
            cosines[i] += weight * (cosine - cosines[i])
            lengths[i] += weight * (length - lengths[i])
    wanted = [
        [part.position, math.tanh(5 * c), math.tanh(length / 2)]
        for part, c, length in zip(PARTS, cosines, lengths, strict=True)
    ]
    torch.testing.assert_close(memory.features(), torch.tensor(wanted, dtype=torch.float64))
    assert memory.kinds.tolist() == [2, 4, 3]


def test_without_a_step_before_only_the_position_is_known():
    memory = PartMemory(PARTS, torch.zeros(1))
    memory.add(torch.randn(9), torch.zeros(9))
    features = memory.features()
    assert features[:, 0].tolist() == [-1, 0, 1]
    assert not features[:, 1:].any()


def test_features_are_finite_whatever_was_seen():
    for scale in (0.0, 1e-30, 1e30):
        memory = PartMemory(PARTS, torch.zeros(1))
        memory.add(torch.full((9,), scale), torch.cat([torch.zeros(4), torch.full((5,), scale)]))
        features = memory.features()
        assert bool(torch.isfinite(features).all()), scale
        assert bool((features.abs() <= 1).all())


def test_positions_go_from_the_first_parameter_to_the_last():
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    basis = Basis(model, list(model.parameters()), decay=0.9, samples=8, max_dimension=9, seed=0)
    # The layers come first, then what is not rotated: the norm's scale and bias.
    assert [p.position for p in basis.parts] == pytest.approx([-1.0, 0.6, -0.2, 0.2])
    one = nn.Linear(4, 3, bias=False)
    basis = Basis(one, list(one.parameters()), decay=0.9, samples=8, max_dimension=9, seed=0)
    assert [p.position for p in basis.parts] == [-1.0]


def test_a_part_s_features_change_its_damping_alone():
    network = DampingNetwork().double()
    features = torch.zeros(FEATURES, dtype=torch.float64)
    features[0] = 1
    parts = torch.tensor([[-1.0, 0, 0], [0, 0.5, 0], [1.0, 0, 0]], dtype=torch.float64)
    kinds = torch.tensor([0, 2, 2])
    assert not network(features, parts, kinds).any()
    with torch.no_grad():
        network.parts[0] = torch.tensor([0.1, 0.2, 0.0])
        network.kinds[2] = 0.05
    found = network(features, parts, kinds)
    wanted = 2.3 * torch.tanh(torch.tensor([-0.1, 0.15, 0.15], dtype=torch.float64))
    torch.testing.assert_close(found, wanted)


def test_learned_weights_of_parts_move_the_parts_apart_and_are_resumed():
    trained = fresh_networks()
    with torch.no_grad():
        trained["damping"].parts[0, 0] = 0.4
    weights = {name: net.state_dict() for name, net in trained.items()}
    checkpoint = MetaCheckpoint("mlhf", weights, {"kinds": list(range(6))})
    model, plain = model_of(), model_of()
    optimizer = KroneckerMLHF(model, meta_checkpoint=checkpoint)
    control = KroneckerMLHF(plain, meta_checkpoint=None)
    seen = batches(6)
    for x, y in seen[:3]:
        optimizer.step(x, y)
        control.step(x, y)
    assert not torch.allclose(theta(model), theta(plain))
    other = model_of(1)
    resumed = KroneckerMLHF(other, meta_checkpoint=None)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    for x, y in seen[3:]:
        optimizer.step(x, y)
        resumed.step(x, y)
    assert torch.equal(theta(model), theta(other))


def test_an_older_meta_checkpoint_has_no_weights_of_parts():
    networks = fresh_networks()
    weights = {name: dict(net.state_dict()) for name, net in networks.items()}
    del weights["damping"]["parts"]
    weights["damping"]["weight"] = torch.ones(FEATURES)
    MetaCheckpoint("mlhf", weights).into(networks)
    assert bool((networks["damping"].weight == 1).all())
    assert not networks["damping"].parts.any()
