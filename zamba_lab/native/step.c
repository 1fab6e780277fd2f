/* One token through the parts of a layer that are not matrix products, for one pair of types. See step.py.
 *
 * Everything between what comes in and what goes out is `real`: rounding to `stored` happens once, at the end.
 */
#include "types.h"

#define PARALLEL_ABOVE 65536        /* multiply-adds; below, waking a second thread costs more than it saves */
#define LOG1P(v) (sizeof(v) == 8 ? log1p(v) : log1pf(v))

#define SIGMOID(v) (1 / (1 + EXP(-(v))))

static inline real step_size(real raw, double dt_min) {
    real dt = raw > 20 ? raw : LOG1P(EXP(raw));
    return dt < (real)dt_min ? (real)dt_min : dt;
}

/* The rates of an SSM are stored as `real` or as `stored`. */
static inline real rate(const void *t, int64_t wide, int64_t i) {
    return wide ? ((const real *)t)[i] : load(((const stored *)t)[i]);
}

/* Products of a with `rows` rows, 4 at a time so that their sums are made side by side: y[j] = <a, b_j>, b: (rows, n). */
static void dots(const real *a, const stored *b, int64_t rows, int64_t n, real *y) {
    int64_t j = 0;
    for (; j + 4 <= rows; j += 4) {
        const stored *b0 = b + j * n, *b1 = b0 + n, *b2 = b1 + n, *b3 = b2 + n;
        fetch((const char *)(b + j * n) + AHEAD, sizeof(stored) * 4 * n);
        real s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
        for (int64_t i = 0; i < n; i++) {
            s0 += a[i] * load(b0[i]);
            s1 += a[i] * load(b1[i]);
            s2 += a[i] * load(b2[i]);
            s3 += a[i] * load(b3[i]);
        }
        y[j] = s0, y[j + 1] = s1, y[j + 2] = s2, y[j + 3] = s3;
    }
    for (; j < rows; j++) {
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) sum += a[i] * load(b[j * n + i]);
        y[j] = sum;
    }
}

/* y = sum_j w_j b_j, 4 rows at a time for the same reason. b: (rows, n), y: (n,). */
static void mix(const real *w, const stored *b, int64_t rows, int64_t n, real *y) {
    memset(y, 0, sizeof(real) * n);
    int64_t j = 0;
    for (; j + 4 <= rows; j += 4) {
        const stored *b0 = b + j * n, *b1 = b0 + n, *b2 = b1 + n, *b3 = b2 + n;
        fetch((const char *)(b + j * n) + AHEAD, sizeof(stored) * 4 * n);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] += (w[j] * load(b0[i]) + w[j + 1] * load(b1[i])) + (w[j + 2] * load(b2[i]) + w[j + 3] * load(b3[i]));
    }
    for (; j < rows; j++)
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] += w[j] * load(b[j * n + i]);
}

static void normalise(const real *a, const stored *weight, int64_t n, double eps, int early, stored *out) {
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * a[i];
    real by = 1 / SQRT(sum / n + (real)eps);
    if (early)
        for (int64_t i = 0; i < n; i++) out[i] = store(load(store(a[i] * by)) * load(weight[i]));
    else
        for (int64_t i = 0; i < n; i++) out[i] = store(a[i] * by * load(weight[i]));
}

/* RMSNorm of `rows` rows of d numbers, rounded before the weight. */
int EXPORT(norm_step)(int64_t threads, int64_t rows, int64_t d, double eps, const stored *x, const stored *weight, stored *y) {
    (void)threads;
    real *a = scratch(sizeof(real) * d);
    if (!a) return 1;
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t i = 0; i < d; i++) a[i] = load(x[row * d + i]);
        normalise(a, weight, d, eps, 1, y + row * d);
    }
    free(a);
    return 0;
}

int EXPORT(norm_step_packed)(const slot *a) {
    return EXPORT(norm_step)(a[0].i, a[1].i, a[2].i, a[3].d, a[4].p, a[5].p, a[6].p);
}

/* y = a + b, n numbers. */
int EXPORT(plus_step)(int64_t threads, int64_t n, const stored *a, const stored *b, stored *y) {
    (void)threads;
    for (int64_t i = 0; i < n; i++) y[i] = store(load(a[i]) + load(b[i]));
    return 0;
}

int EXPORT(plus_step_packed)(const slot *a) { return EXPORT(plus_step)(a[0].i, a[1].i, a[2].p, a[3].p, a[4].p); }

/* Rows of a and b side by side. a: (rows, n), b: (rows, m), y: (rows, n + m). */
int EXPORT(join_step)(int64_t threads, int64_t rows, int64_t n, int64_t m, const stored *a, const stored *b, stored *y) {
    (void)threads;
    for (int64_t i = 0; i < rows; i++, y += n + m) {
        memcpy(y, a + i * n, sizeof(stored) * n);
        memcpy(y + n, b + i * m, sizeof(stored) * m);
    }
    return 0;
}

int EXPORT(join_step_packed)(const slot *a) { return EXPORT(join_step)(a[0].i, a[1].i, a[2].i, a[3].i, a[4].p, a[5].p, a[6].p); }

/* The normal distribution function, for gelu. Phi(-a) = t q(t) exp(-a^2 / 2) with t = 1 / (1 + 0.265 a), as in Abramowitz & Stegun
 * 26.2.17, but q of degree 8 and fitted to the least relative error (1.2e-8). No branches, so that the compiler makes vectors of it. */
static inline real normal_cdf(real v) {
#if defined(TYPE_f64)
    return 0.5 * erfc(v * -0.70710678118654752440);
#else
    float a = v < 0 ? -v : v, t = 1 / (1 + 0.265f * a), q = 0.030820807f;
    q = q * t - 0.14422843f;
    q = q * t + 0.21781461f;
    q = q * t - 0.11636222f;
    q = q * t + 0.13795285f;
    q = q * t + 0.060313206f;
    q = q * t + 0.10270096f;
    q = q * t + 0.10524666f;
    q = q * t + 0.10574156f;
    float below = q * t * exp_float(-0.5f * v * v);
    return v > 0 ? 1 - below : below;
#endif
}

/* gelu (exact), gelu with tanh, silu, relu, as ops/gate.py counts them. */
static inline __attribute__((always_inline)) real activation(const int kind, real v) {
    if (kind == 0) return v * normal_cdf(v);
    if (kind == 1) return v * SIGMOID((real)1.5957691216057308 * (v + (real)0.044715 * v * v * v));
    if (kind == 2) return v * SIGMOID(v);
    return v > 0 || v != v ? v : 0;
}

static inline __attribute__((always_inline)) void gate_row(const int kind, int64_t n, const stored *gate, const stored *up, stored *y) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = store(activation(kind, load(gate[i])) * load(up[i]));
}

/* act(gate) up, the inside of a gated MLP. both: (rows, 2 d), gate before up; y: (rows, d). */
int EXPORT(gate_forward)(int64_t threads, int64_t rows, int64_t d, int64_t kind, const stored *both, stored *y) {
    int64_t piece = 1024, pieces = (d + piece - 1) / piece;         /* a token alone is one row, of thousands of columns */
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * d > 2048)
    for (int64_t task = 0; task < rows * pieces; task++) {
        int64_t row = task / pieces, from = task % pieces * piece, n = least(piece, d - from);
        const stored *gate = both + row * 2 * d + from, *up = gate + d;
        stored *to = y + row * d + from;
        if (kind == 0) gate_row(0, n, gate, up, to);
        else if (kind == 1) gate_row(1, n, gate, up, to);
        else if (kind == 2) gate_row(2, n, gate, up, to);
        else gate_row(3, n, gate, up, to);
    }
    return 0;
}

int EXPORT(gate_forward_packed)(const slot *a) { return EXPORT(gate_forward)(a[0].i, a[1].i, a[2].i, a[3].i, a[4].p, a[5].p); }

#include "step_mixer.inc"

/* x turned by the angles of its position, rounded as it is stored. cos, sin: (p / 2,), or NULL for a plain copy. */
static void rotate(const stored *x, const stored *cosine, const stored *sine, int64_t p, stored *y) {
    if (!cosine) {
        memcpy(y, x, sizeof(stored) * p);
        return;
    }
    for (int64_t i = 0; i < p / 2; i++) {
        real a = load(x[i]), b = load(x[i + p / 2]), c = load(cosine[i]), s = load(sine[i]);
        y[i] = store(a * c - b * s);
        y[i + p / 2] = store(b * c + a * s);
    }
}

/* softmax(q K^T scale) V for one query over s positions; hidden ones have seen[j] = 0. q: (p,), K, V: (s, p);
 * scores: (s,), acc: (p,) for the work. */
static void attend_one(int64_t s, int64_t p, double scale, const real *q, const stored *K, const stored *V,
                           const uint8_t *seen, real *scores, real *acc, stored *y) {
    real most = -INFINITY, sum = 0;
    dots(q, K, s, p, scores);
    for (int64_t j = 0; j < s; j++) {
        scores[j] = seen && !seen[j] ? -INFINITY : scores[j] * (real)scale;
        most = scores[j] > most ? scores[j] : most;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < s; j++) {
        scores[j] = EXP(scores[j] - most);
        sum += scores[j];
    }
    if (seen)
        for (int64_t j = 0; j < s; j++) scores[j] = seen[j] ? scores[j] : 0;
    mix(scores, V, s, p, acc);
    for (int64_t i = 0; i < p; i++) y[i] = store(acc[i] / sum);
}

/* Attention of one new token, whose key and value are put at position s - 1 of the buffers first.
 * q: (b, h, p); k, v: (b, g, p), heads of a group of h / g share them; cos, sin: (p / 2,), turn_b apart from row to row,
 * or NULL; K, V: (b, g, room, p); seen: (b, s), seen_b apart, or NULL; y: (b, h, p). */
int EXPORT(attend_step)(int64_t threads, int64_t b, int64_t h, int64_t g, int64_t p, int64_t s, int64_t room, double scale,
                    const stored *q, const stored *k, const stored *v, const stored *cosine, const stored *sine, int64_t turn_b, stored *K, stored *V,
                    const uint8_t *seen, int64_t seen_b, stored *y) {
    int64_t each = s + 3 * p;
    real *work = scratch(sizeof(real) * b * g * each);
    if (!work) return 1;
#pragma omp parallel for num_threads(threads) schedule(static) if (b * g * s * p > PARALLEL_ABOVE)
    for (int64_t task = 0; task < b * g; task++) {
        int64_t i = task / g;
        const stored *c = cosine ? cosine + i * turn_b : NULL, *d = cosine ? sine + i * turn_b : NULL;
        stored *Ki = K + task * room * p, *Vi = V + task * room * p;
        real *query = work + task * each, *acc = query + p, *scores = acc + 2 * p;
        stored *turned = (stored *)(acc + p);
        rotate(k + task * p, c, d, p, Ki + (s - 1) * p);
        memcpy(Vi + (s - 1) * p, v + task * p, sizeof(stored) * p);
        for (int64_t head = task * (h / g); head < (task + 1) * (h / g); head++) {
            rotate(q + head * p, c, d, p, turned);
            for (int64_t j = 0; j < p; j++) query[j] = load(turned[j]);
            attend_one(s, p, scale, query, Ki, Vi, seen ? seen + i * seen_b : NULL, scores, acc, y + head * p);
        }
    }
    free(work);
    return 0;
}

int EXPORT(attend_step_packed)(const slot *a) {
    return EXPORT(attend_step)(a[0].i, a[1].i, a[2].i, a[3].i, a[4].i, a[5].i, a[6].i, a[7].d, a[8].p, a[9].p, a[10].p, a[11].p,
                           a[12].p, a[13].i, a[14].p, a[15].p, a[16].p, a[17].i, a[18].p);
}
