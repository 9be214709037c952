"""Computed solutions against other methods for the same equations."""

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from mlhf.data.pde.references import allen_cahn, burgers

NU, TIMES = 0.02, np.array([0.2, 0.5, 1.0])


def _points(x, times):
    t, x = np.meshgrid(times, x, indexing="ij")
    return np.stack([x.ravel(), t.ravel()], 1)


def test_burgers_is_what_a_spectral_method_finds():
    count = 256
    x = np.linspace(-1, 1, count, endpoint=False)
    k = 1j * np.pi * np.fft.rfftfreq(count, 1 / count)

    def slope(_, u):
        modes = np.fft.rfft(u)
        first, second = np.fft.irfft(k * modes), np.fft.irfft(k * k * modes)
        return NU * second - u * first

    found = solve_ivp(
        slope, (0, 1), -np.sin(np.pi * x), "DOP853", t_eval=TIMES, rtol=1e-11, atol=1e-12
    )
    exact = burgers(_points(x, TIMES), {"viscosity": NU}).reshape(len(TIMES), count)
    assert np.abs(found.y.T - exact).max() < 1e-8


@pytest.mark.parametrize("viscosity", [0.01 / np.pi, 0.5])
def test_burgers_is_cole_and_hopfs_quotient_of_integrals(viscosity):
    x, t = 0.3, 0.4

    def weight(s):
        exponent = -np.cos(np.pi * (x - s)) / (2 * np.pi * viscosity) - s * s / (4 * viscosity * t)
        return np.exp(exponent - 1 / (2 * np.pi * viscosity))

    options = {"epsabs": 0, "epsrel": 1e-12, "limit": 500, "points": [-0.5, -0.25, 0.0, 0.25]}
    above = quad(lambda s: np.sin(np.pi * (x - s)) * weight(s), -6, 6, **options)[0]
    below = quad(weight, -6, 6, **options)[0]
    found = burgers(np.array([[x, t], [x, 0.0]]), {"viscosity": viscosity})
    assert found == pytest.approx([-above / below, -np.sin(np.pi * x)], rel=1e-10)


def test_allen_cahn_is_what_finite_differences_tend_to():
    """On [0, 1] with no flux, which is the same by symmetry; of second order, extrapolated."""
    kappa, a, times = 0.01, 5.0, np.array([0.25, 0.5, 1.0])

    def solve(cells):
        x = (np.arange(cells) + 0.5) / cells

        def slope(_, u):
            padded = np.concatenate([u[:1], u, u[-1:]])
            return kappa * cells**2 * np.diff(padded, 2) + a * (u - u**3)

        start = x**2 * np.cos(np.pi * x)
        options = {"t_eval": times, "rtol": 1e-8, "atol": 1e-9, "lband": 1, "uband": 1}
        return x, solve_ivp(slope, (0, 1), start, "LSODA", **options).y.T

    x, coarse = solve(243)
    finer, fine = solve(729)
    assert np.allclose(finer[1::3], x)
    extrapolated = fine[:, 1::3] + (fine[:, 1::3] - coarse) / 8
    exact = allen_cahn(_points(x, times), {"diffusivity": kappa, "reaction": a})
    assert np.abs(extrapolated.ravel() - exact).max() < 1e-6


def test_allen_cahn_starts_from_its_initial_values_and_settles_between_its_wells():
    x = np.linspace(-1, 1, 33)
    coefficients = {"diffusivity": 1e-3, "reaction": 5.0}
    start, late = allen_cahn(_points(x, [0.0, 1.0]), coefficients).reshape(2, -1)
    assert np.array_equal(start, x**2 * np.cos(np.pi * x))
    assert np.abs(late).max() < 1
    assert np.allclose(late, late[::-1], rtol=0, atol=1e-12)
    assert late[0] < -0.99
    assert late[22] > 0.9
