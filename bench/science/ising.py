"""The ground state of an Ising chain of eight spins by a restricted Boltzmann machine.

    python -m bench.science.ising

Prints the relative error of the energy, over all configurations, every ten steps until 1e-7.
"""

import torch
from torch import Tensor, nn

from mlhf import GaussNewton

SPINS, HIDDEN, MOST = 8, 16, 400
_INDEX = torch.arange(2**SPINS)
_SPINS = 1.0 - 2.0 * (_INDEX[:, None] >> torch.arange(SPINS) & 1).double()
_FLIPS = _INDEX[:, None] ^ (1 << torch.arange(SPINS))
_DIAGONAL = -(_SPINS * _SPINS.roll(-1, 1)).sum(1)


class Rbm(nn.Module):
    """log ψ."""

    def __init__(self) -> None:
        super().__init__()
        self.visible = nn.Linear(SPINS, 1, bias=False)
        self.hidden = nn.Linear(SPINS, HIDDEN)
        for p in self.parameters():
            nn.init.normal_(p, std=0.05)

    def forward(self, s: Tensor) -> Tensor:
        h = self.hidden(s)
        out: Tensor = self.visible(s).squeeze(-1) + torch.logaddexp(h, -h).sum(-1)
        return out


def energy(z: Tensor, _: None) -> Tensor:
    p = torch.softmax(2 * z, 0)
    return (p * (_DIAGONAL - (z[_FLIPS] - z[:, None]).exp().sum(1))).sum()


def main() -> None:
    hamiltonian = torch.diag(_DIAGONAL)
    for i in range(SPINS):
        hamiltonian[_INDEX, _FLIPS[:, i]] -= 1
    exact = float(torch.linalg.eigvalsh(hamiltonian)[0])
    for seed in range(3):
        torch.manual_seed(seed)
        model = Rbm().double()
        optimizer = GaussNewton(model, energy, metric=lambda z, _: torch.logsumexp(2 * z, 0) / 4)
        for step in range(MOST):
            loss = float(optimizer.step(_SPINS).loss)
            error = abs(loss - exact) / abs(exact)
            if step % 10 == 0 or error < 1e-7:
                print(f"seed {seed}, step {step}: {error:.1e}", flush=True)
            if error < 1e-7:
                break


if __name__ == "__main__":
    main()
