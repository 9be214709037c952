"""Section 3's step in float64 with dense matrices, written apart from the engine."""

import torch
from torch.func import functional_call, hessian, jacrev


def flat_function(model, shapes_of):
    """θ ↦ (name ↦ tensor) for the parameters in the given order."""
    names = {id(p): n for n, p in model.named_parameters()}

    def unpack(theta):
        out, at = {}, 0
        for p in shapes_of:
            out[names[id(p)]] = theta[at : at + p.numel()].view(p.shape)
            at += p.numel()
        return out

    return unpack


def gradient_and_matrix(model, unpack, theta, x, y):
    """Loss, ∇ℓ and JᵀHJ of mean cross-entropy at θ, all dense."""

    def outputs(theta):
        buffers = {k: v.clone() for k, v in model.named_buffers()}
        return functional_call(model, {**unpack(theta), **buffers}, (x,))

    def loss(z):
        return torch.nn.functional.cross_entropy(z.view(len(y), -1), y)

    z = outputs(theta)
    jacobian = jacrev(outputs)(theta).reshape(z.numel(), -1)
    inner = hessian(loss)(z.reshape(-1))
    b = jacrev(lambda t: loss(outputs(t)))(theta)
    return loss(z), b, jacobian.T @ inner @ jacobian


def lstm(x, h, c, w, bias):
    """One LSTM step for one coordinate, gate by gate."""
    z = w @ torch.cat([x, h]) + bias
    n = len(h)
    i, f, g, o = z.split(n)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c + i * g
    return o * c.tanh(), c


def network(inputs, states, weights, kinds):
    """One coordinate after the other; states is a list of (h1, c1, h2, c2)."""
    out, after = [], []
    for j, kind in enumerate(kinds):
        h1, c1, h2, c2 = states[j]
        x = torch.stack([v[j] for v in inputs]).tanh()
        h1, c1 = lstm(x, h1, c1, weights.w1[kind], weights.b1[kind])
        h2, c2 = lstm(h1, h2, c2, weights.w2[kind], weights.b2[kind])
        out.append(torch.log1p((weights.w3[kind] @ h2 + weights.b3[kind]).exp()))
        after.append((h1, c1, h2, c2))
    return torch.stack(out), after


def cg(a, b, x, inverse, iterations):
    r = b - a @ x
    y = inverse * r
    p = y
    for _ in range(iterations):
        alpha = (r @ y) / (p @ a @ p)
        x = x + alpha * p
        new = r - alpha * (a @ p)
        z = inverse * new
        p = z + (new @ z) / (r @ y) * p
        r, y = new, z
    return x, r


def direction(matrix, b, d, r, states, networks, kinds, iterations=4):
    """Algorithm 2 without the update: the new d, r and states, and Ĝ."""
    s, states_s = network([b, r, d], states[0], networks["damping"], kinds)
    damped = matrix + torch.diag(s + 2e-5)
    p, states_p = network([b, b - damped @ d, d], states[1], networks["preconditioner"], kinds)
    d, r = cg(damped, b, d, p, iterations)
    return d, r, (states_s, states_p), damped


def zero_states(n):
    zero = torch.zeros(4, dtype=torch.float64)
    return ([(zero,) * 4] * n, [(zero,) * 4] * n)
