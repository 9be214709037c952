"""Computed solutions in float64, to ten digits or more."""

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from mlhf.data.arrays import Array

_BLOCK = 2**21  # numbers of the quadrature at a time
_SPACING = 0.05
_TAIL = 9.0  # beyond, a Gaussian is below rounding
_STEPS = 1024  # of time, in which a reaction of rate 5 runs for 1
_LEAST_MODES, _MOST_MODES = 256, 4096
_DECAYED = 25.0  # exp(−25): what is left of the modes that are dropped


def burgers(points: Array, coefficients: Mapping[str, float]) -> Array:
    """Return u of u_t + u·u_x = ν·u_xx, u(x, 0) = −sin πx, on the whole line.

    By the transform of Cole and Hopf, a quotient of two integrals of Gaussian type; the
    trapezoidal rule converges exponentially there.

    Args:
        points: (n, 2), x and t.
        coefficients: Has ``viscosity``.
    """
    nu = coefficients["viscosity"]
    found = -np.sin(np.pi * points[:, 0])
    later = np.flatnonzero(points[:, 1] > 0)
    if not len(later):
        return found
    x, t = points[later, 0], points[later, 1]
    reach = _TAIL + math.sqrt(float(t.max()) / (4 * nu))  # where the integrand's peaks may be
    spacing = _SPACING / math.sqrt(1 + float(t.max()))
    z = np.arange(-reach, reach + spacing, spacing)
    rows = max(1, _BLOCK // len(z))
    for start in range(0, len(later), rows):
        part = slice(start, start + rows)
        shifted = x[part, None] - np.sqrt(4 * nu * t[part, None]) * z
        exponent = -np.cos(np.pi * shifted) / (2 * np.pi * nu) - z * z
        weight = np.exp(exponent - exponent.max(1, keepdims=True))
        found[later[part]] = -(weight * np.sin(np.pi * shifted)).sum(1) / weight.sum(1)
    return found


def allen_cahn(points: Array, coefficients: Mapping[str, float]) -> Array:
    """Return u of u_t = κ·u_xx + a(u − u³), u(x, 0) = x² cos πx, periodic on [−1, 1].

    Args:
        points: (n, 2), x and t.
        coefficients: Has ``diffusivity`` and ``reaction``.
    """
    times, place = np.unique(points[:, 1], return_inverse=True)
    kappa, a = coefficients["diffusivity"], coefficients["reaction"]
    modes = _allen_cahn_modes(kappa, a, tuple(times.tolist()))
    found = points[:, 0] ** 2 * np.cos(np.pi * points[:, 0])
    k = np.pi * np.arange(modes.shape[1])
    for number in np.flatnonzero(times > 0):
        rows = np.flatnonzero(place == number)
        for part in np.array_split(rows, max(1, len(rows) * len(k) // _BLOCK)):
            found[part] = np.cos(points[part, :1] * k) @ modes[number]
    return found


@lru_cache(maxsize=4)
def _allen_cahn_modes(kappa: float, a: float, times: tuple[float, ...]) -> Array:
    """Return the coefficients of cos kπx at each time, (times, modes).

    Pseudospectral, dealiased for the cubic term; steps of exponential time differencing of
    fourth order (Cox & Matthews 2002, by the contour integrals of Kassam & Trefethen 2005).
    """
    width = math.sqrt(2 * kappa / a)  # of a front
    first = min((t for t in times if t > 0), default=1.0)
    needed = max(6 / width, math.sqrt(_DECAYED / (kappa * first)) / math.pi)
    count = _LEAST_MODES
    while count < min(needed, _MOST_MODES):
        count *= 2
    k = np.pi * np.arange(count)
    linear = a - kappa * k * k
    state = _initial_modes(count)
    found = np.empty((len(times), count))
    now = 0.0
    for number, time in enumerate(times):
        steps = math.ceil((time - now) * max(a, 1.0) / 5 * _STEPS - 1e-9)
        if steps:
            scheme = _Etd4(linear, (time - now) / steps, a)
            for _ in range(steps):
                state = scheme.step(state)
        now, found[number] = time, state
    return found


def _initial_modes(count: int) -> Array:
    """Return the cosine coefficients of x² cos πx, exactly: its derivative jumps at ±1."""
    k = np.arange(count, dtype=np.float64)
    # x² = 1/3 + Σ 4(−1)ⁿ/(n²π²) cos nπx, times cos πx.
    square = np.where(k > 0, 4 * (-1) ** k / (np.maximum(k, 1) * np.pi) ** 2, 1 / 3)
    beyond = 4 * (-1) ** count / (count * np.pi) ** 2
    up = np.append(square[1:], beyond)
    found: Array = 0.5 * (up + np.append(0.0, square[:-1]))
    found[0] = 0.5 * square[1]
    found[1] = square[0] + 0.5 * square[2]
    return found


class _Etd4:
    """One step of u' = Lu + N(u), L diagonal, N(u) = −a·u³."""

    def __init__(self, linear: Array, step: float, a: float) -> None:
        self._a = a
        z = step * linear
        self._whole, self._half = np.exp(z), np.exp(z / 2)
        contour = np.exp(1j * np.pi * (np.arange(32) + 0.5) / 32)
        r = z[:, None] + contour
        e = np.exp(r)

        def mean(values: Array) -> Array:
            return np.asarray(step * values.mean(1).real)

        self._q = mean((np.exp(r / 2) - 1) / r)
        self._first = mean((-4 - r + e * (4 - 3 * r + r * r)) / r**3)
        self._middle = mean((2 + r + e * (r - 2)) / r**3)
        self._last = mean((-4 - 3 * r - r * r + e * (4 - r)) / r**3)

    def step(self, u: Array) -> Array:
        """Return u a step later."""
        at = self._cube(u)
        a = self._half * u + self._q * at
        of_a = self._cube(a)
        b = self._half * u + self._q * of_a
        of_b = self._cube(b)
        c = self._half * a + self._q * (2 * of_b - at)
        return np.asarray(
            self._whole * u
            + self._first * at
            + 2 * self._middle * (of_a + of_b)
            + self._last * self._cube(c)
        )

    def _cube(self, modes: Array) -> Array:
        """Return the modes of −a·u³: on twice as many points, so that none is aliased."""
        count = len(modes)
        padded = np.zeros(2 * count + 1)
        padded[:count] = modes / 2
        padded[0] = modes[0]
        points = 4 * count
        values = np.fft.irfft(padded * points, points)
        cubed = np.fft.rfft(values**3)[:count].real / points
        cubed[1:] *= 2
        return np.asarray(-self._a * cubed)
