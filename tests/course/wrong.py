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


# --- lesson 3 ---


def one_decay_for_all(x, dt, A, B, C, state):
    state = state * A.exp() + torch.outer(x * dt, B)
    return state.mv(C), state


def unweighted_write(x, dt, A, B, C, state):
    state = state * (A * dt[:, None]).exp() + torch.outer(x, B)
    return state.mv(C), state


def growing(x, dt, A, B, C, state):
    state = state / (A * dt[:, None]).exp() + torch.outer(x * dt, B)
    return state.mv(C), state


def first_tokens_B_and_C(x, dt, A, B, C):
    h, ys = A * 0, []
    for x_t, dt_t in zip(x, dt):
        h = (A * dt_t[:, None]).exp() * h + torch.outer(x_t * dt_t, B[0])
        ys.append(h.mv(C[0]))
    return torch.stack(ys), h


def forgetful(x, dt, A, B, C):
    ys = []
    for t in range(len(x)):
        h = torch.zeros_like(A)
        h = (A * dt[t][:, None]).exp() * h + torch.outer(x[t] * dt[t], B[t])
        ys.append(h.mv(C[t]))
    return torch.stack(ys), h


def reads_first(x, dt, A, B, C):
    h, ys = A * 0, []
    for t in range(len(x)):
        ys.append(h.mv(C[t]))
        h = (A * dt[t][:, None]).exp() * h + torch.outer(x[t] * dt[t], B[t])
    return torch.stack(ys), h


# --- lesson 4 ---


def mask_by_loop(a, first=1):
    """Sums from s + first to t."""
    L = torch.zeros(len(a), len(a), dtype=a.dtype)
    for t in range(len(a)):
        for s in range(t + 1):
            L[t, s] = a[s + first : t + 1].sum().exp()
    return L


def attention(x, dt, A, B, C, mask=True, value_step=True, swap=False):
    total = (A * dt).cumsum(0)
    table = torch.einsum("tn,sn->ts", *((B, C) if swap else (C, B)))
    table = table * (total[:, None] - total).exp().tril() if mask else table
    return torch.einsum("ts,sp->tp", table, x * dt[:, None] if value_step else x)


def chunk_by_loop(x, dt, A, B, C, state, own_decays=True, keep=True, old_decays=True):
    """Token by token, but with the new state put together at the end, wrongly."""
    h, old, ys, own = state, state, [], torch.zeros_like(state)
    for t in range(len(x)):
        w, d = torch.outer(x[t] * dt[t], B[t]), math.exp(A * dt[t])
        h = h * d + w
        own = own * d + w if own_decays else own + w
        old = old * d
        ys.append(h @ C[t] if old_decays else (h - old + state) @ C[t])
    return torch.stack(ys), (old + own if keep else own)


def chunks_by_loop(x, dt, A, B, C, chunk_size, restart=False, **wrong):
    h, ys = torch.zeros(x.shape[1], B.shape[1], dtype=x.dtype), []
    for part in zip(x.split(chunk_size), dt.split(chunk_size), B.split(chunk_size), C.split(chunk_size)):
        if restart:
            h = torch.zeros_like(h)
        y, h = chunk_by_loop(part[0], part[1], A, part[2], part[3], h, **wrong)
        ys.append(y)
    return torch.cat(ys), h


# --- lesson 1 ---


def into_the_stream(x, x0, norm, mixer, block, link):
    x = x + link(block(torch.hstack([x, x0])))
    return x + mixer(norm(x))


def alternate_by_depth(hybrid_layers, n_shared_blocks):
    return [(i, i % n_shared_blocks) for i in range(max(hybrid_layers) + 1) if i in hybrid_layers]


# --- lesson 10 ---


def unpaired(before, after):
    a, b = before.mean(), after.mean()
    error = math.sqrt(before.var() / len(before) + after.var() / len(after))
    return b - a, b - a - 1.96 * error, b - a + 1.96 * error


def spread(before, after):
    change = [float(b - a) for a, b in zip(before, after)]
    middle = sum(change) / len(change)
    error = math.sqrt(sum((each - middle) ** 2 for each in change) / (len(change) - 1))
    return middle, middle - 1.96 * error, middle + 1.96 * error


def population(before, after):
    change = (after - before).numpy()
    error = change.std() / math.sqrt(len(change))
    return torch.tensor(change.mean()), torch.tensor(change.mean() - 1.96 * error), torch.tensor(change.mean() + 1.96 * error)


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
    "3.1": [
        (lambda raw, bias: torch.clamp(raw + bias, min=0), "This is ReLU"),
        (lambda raw, bias: raw.exp() * bias.exp(), "The exponential alone"),
        (lambda raw, bias: torch.nn.functional.softplus(raw) + bias, "The bias is added after"),
        (lambda raw, bias: torch.nn.functional.softplus(raw), "The bias is missing"),
    ],
    "3.2": [
        (lambda marked: (torch.ones(len(marked)).double() * 100, torch.ones(len(marked)).double() / 100), "The memory takes every token"),
        (lambda marked: ((~marked).double() * 30, torch.ones(len(marked)).double() / 30), "It holds the tokens without a mark"),
        (lambda marked: (marked.to(torch.float64), marked.to(torch.float64)), "The old value is not forgotten"),
    ],
    "3.3": [
        (one_decay_for_all, "The step size is missing from the decay"),
        (unweighted_write, "The step size is missing from the write"),
        (growing, "The state grows"),
    ],
    "3.4": [
        (first_tokens_B_and_C, "Every token has the first token's B and C"),
        (forgetful, "The state is not carried on"),
        (reads_first, "You read before you wrote"),
    ],
    "4.1": [
        (lambda a: mask_by_loop(a, first=0), "The decay of the written token itself"),
        (lambda a: mask_by_loop(a).T, "The matrix is transposed"),
        (lambda a: torch.exp(a.cumsum(0)[:, None] - a.cumsum(0)), "The future is not masked"),
        (lambda a: torch.tril(a.cumsum(0)[:, None] - a.cumsum(0)), "The exponential is missing"),
    ],
    "4.2": [
        (lambda *a: attention(*a, mask=False), "The mask is missing"),
        (lambda *a: attention(*a, value_step=False), "The values lack the step size"),
        (lambda *a: attention(*a, swap=True), "B and C are swapped"),
    ],
    "4.3": [
        (lambda *a: chunk_by_loop(*a, own_decays=False), "The chunk's last state is missing its decay"),
        (lambda *a: chunk_by_loop(*a, keep=False), "The old state is not handed on"),
        (lambda *a: chunk_by_loop(*a, old_decays=False), "The old state does not decay inside the chunk"),
    ],
    "4.4": [
        (lambda *a: chunks_by_loop(*a, restart=True), "Every chunk starts from zero"),
        (lambda *a: chunks_by_loop(*a, own_decays=False), "The chunk's last state is missing its decay"),
        (lambda *a: chunks_by_loop(*a, keep=False), "Only the chunk just before"),
    ],
    "4.5": [
        (lambda l, q, p, n: q * (q * n + q * p + n * p + n * p), "This is the cost of one chunk"),
        (lambda l, q, p, n: l * q * (n + p), "The state's products are missing"),
        (lambda l, q, p, n: l * q * (n + p) + l * n * p, "The state is read but not written"),
    ],
    "1.1": [
        (alternate_by_depth, "The block follows the depth"),
        (lambda hybrid_layers, n: [(i, 0) for i in hybrid_layers], "Only one block"),
        (lambda hybrid_layers, n: list(zip(hybrid_layers, [k % n for k in range(1, 99)])), "The turns begin with the second"),
    ],
    "1.2": [
        (lambda block, own, k, n: block * k + own * k, "Nothing is shared"),
        (lambda block, own, k, n: block * n + own * n, "Links and adapters are shared, too"),
        (lambda block, own, k, n: n * block, "Links and adapters are missing"),
        (lambda block, own, k, n: block + sum([own] * k), "There may be more than one block"),
    ],
    "1.3": [
        (into_the_stream, "The block's output is added to the stream"),
        (lambda x, x0, f, m, b, k: x + m(f(x + k(b(torch.hstack([x0, x]))))), "Stream and embeddings are in the wrong order"),
        (lambda x, x0, f, m, b, k: m(f(x + k(b(torch.hstack([x, x0]))))), "The stream is not carried on"),
        (lambda x, x0, f, m, b, k: m(f(x) + k(b(torch.hstack([x, x0])))) + x, "The norm comes too early"),
    ],
    "5.1": [
        (lambda keys, values: values[-1][:, None] * keys[-1][None], "Only the last pair"),
        (lambda keys, values: values.sum(0)[:, None] * keys.sum(0)[None], "Keys and values are summed apart"),
        (lambda keys, values: (values[:, :, None] * keys[:, None]).mean(0), "This is the mean over the pairs"),
    ],
    "5.2": [
        (lambda m, n: m * n**-1, "The pair that is read counts"),
        (lambda m, n: (m / n - 1 / n) ** 0.5, "This is the standard deviation"),
        (lambda m, n: (m - 1) / n / n, "The inner product is squared twice"),
    ],
    "5.3": [
        (lambda state, key, value: state + value[:, None] * key, "The old value is still there"),
        (lambda state, key, value: value[:, None] * key, "The whole state is erased"),
        (lambda state, key, value: state - (state @ key)[:, None] * key, "The old value is taken away"),
        (lambda state, key, value: state - (value - state @ key)[:, None] * key, "The sign is wrong"),
    ],
    "5.4": [
        (lambda decay: sum(decay**j for j in range(20000)), "The weights are not squared"),
        (lambda decay: sum(decay ** (2 * j) for j in range(1, 20000)), "The newest pair is left out"),
        (lambda decay: sum(decay**j for j in range(20000)) ** 2, "This squares the sum"),
    ],
    "10.1": [
        (lambda value: torch.stack([text.mean(0).repeat(len(text), 1) for text in value]), "Each text keeps a mean"),
        (lambda value: torch.stack([value.mean(0)] * len(value)), "Each position keeps a mean"),
        (lambda value: value * 0, "This is zero ablation"),
        (lambda value: torch.full_like(value, value.mean()), "One number is left"),
    ],
    "10.2": [
        (lambda value: torch.cat([value[:, -1:], value[:, :-1]], 1), "The positions are moved"),
        (lambda value: torch.cat([value[1:], value[:1]]), "The texts move the other way"),
        (lambda value: value, "Nothing is replaced"),
    ],
    "10.3": [
        (lambda values: values.mean(0).norm() / torch.stack([v.norm() for v in values]).mean(), "Lengths are compared"),
        (lambda values: (values - values.mean(0)).square().sum() / values.square().sum(), "This is the share that varies"),
        (lambda values: values.mean() ** 2 / (values**2).mean(), "All components are averaged"),
    ],
    "10.4": [(unpaired, "The texts are not paired"), (spread, "This is the spread of texts"), (population, "The deviation divides by b")],
    "9.1": [
        (lambda l, k, h, w, size: l * k * h * w * size, "Values are missing"),
        (lambda l, k, h, w, size: 2 * l * h * w * size, "The cache is counted once"),
        (lambda l, k, h, w, size: 2 * l * k * h * w, "These are numbers"),
    ],
    "9.2": [
        (lambda a, b, c, d: (c - a) / (d - b), "The sign is wrong"),
        (lambda a, b, c, d: (a - c) / d, "The hybrid's own keys"),
        (lambda a, b, c, d: a / (d - b), "The transformer's fixed part"),
    ],
    "9.3": [
        (lambda w, c, n, speed: w / speed + c / speed, "The weights are read for each text"),
        (lambda w, c, n, speed: (w + c) / (n * speed), "All texts share one cache"),
        (lambda w, c, n, speed: w / speed + n * c / speed, "This is the time of a step"),
    ],
}
