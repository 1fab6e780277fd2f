"""Wrong solutions as students write them: number of the exercise -> (function, the beginning of the mistake's name)."""

import math

import torch

# --- lesson 2 ---


def late_decay(x, decay, B, C):
    h, ys, hs = torch.zeros(len(B), dtype=x.dtype), [], []
    for value in x:
        h = (h + value * B) * decay
        hs.append(h)
        ys.append((h * C).sum())
    return torch.stack(ys), torch.stack(hs)


def early_read(x, decay, B, C):
    h, ys, hs = torch.zeros(len(B), dtype=x.dtype), torch.zeros_like(x), []
    for i, value in enumerate(x):
        ys[i] = torch.dot(C, h)
        h = h * decay + value * B
        hs.append(h)
    return ys, torch.stack(hs)


def swapped(x, decay, B, C):
    hs = [x[0] * C]
    for i in range(1, len(x)):
        hs.append(decay * hs[-1] + x[i] * C)
    hs = torch.stack(hs)
    return hs @ B, hs


def no_decay(x, decay, B, C):
    hs = torch.cumsum(x[:, None] * B, dim=0)
    return hs @ C, hs


def euler(A, dt):
    return A * dt + 1, A * 0 + dt


def ones_above(decay, B, C, l):
    return torch.stack([torch.stack([(C * B * decay ** (i - j)).sum() for j in range(l)]) for i in range(l)])


def from_columns(decay, B, C, l):
    M = torch.zeros(l, l, dtype=B.dtype)
    for i in range(l):
        for j in range(i + 1):
            M[j, i] = (C * B * decay ** (i - j)).sum()
    return M


def strictly_past(decay, B, C, l):
    M = torch.zeros(l, l, dtype=B.dtype)
    for i in range(l):
        for j in range(i):
            M[i, j] = C @ (decay ** (i - j) * B)
    return M


WRONG = {
    "2.1": [
        (late_decay, "The decay is applied after the write"),
        (early_read, "You read before you wrote"),
        (swapped, "B and C are swapped"),
        (no_decay, "Nothing decays"),
    ],
    "2.2": [
        (lambda A, dt: -1 / (dt * A), "This is the time to 1/e"),
        (lambda A, dt: math.log(0.5) / -(A * dt), "The sign is wrong"),
        (lambda A, dt: math.log(0.5) / A, "The step size is missing"),
        (lambda A, dt: dt * math.log(0.5) / A, "The step size is on the wrong side"),
    ],
    "2.3": [
        (euler, "This is Euler's step"),
        (lambda A, dt: ((A * dt).exp(), dt * torch.ones_like(A)), "This is Mamba's short form"),
        (lambda A, dt: ((A * dt).exp(), torch.expm1(A * dt)), "The write is not divided by A"),
        (lambda A, dt: ((A * dt).exp(), -torch.expm1(A * dt) / A), "The write has the wrong sign"),
    ],
    "2.4": [
        (ones_above, "The future is not masked"),
        (from_columns, "The matrix is transposed"),
        (strictly_past, "The diagonal is missing"),
    ],
}
