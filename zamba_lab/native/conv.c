/* Causal depthwise convolution followed by SiLU, forward and backward, for one pair of types.
 *
 *     v_t = bias + sum_j weight_j x_{t - (taps - 1) + j}      y_t = v_t / (1 + exp(-v_t))        per channel
 *
 * What lies before the first token is `state`, or zeros. Work is cut into pieces of BLOCK tokens and WIDE channels; rows are
 * read where they lie, so x may be some columns of a wider tensor, and so may dx. The backward pass computes v again.
 */
#include "types.h"

#define BLOCK 64
#define WIDE 256
#define SOON (AHEAD / (int64_t)(WIDE * sizeof(stored)))     /* tokens: rows are far apart, and no processor sees that they follow */

/* A row of the batch: tokens x_l apart, what lies before them (taps - 1, e) or NULL for zeros; weight: (e, taps), bias: (e,) or NULL. */
typedef struct {
    const stored *x, *state, *weight, *bias;
    int64_t x_l, e;
} series_t;

/* Of some channels: their parameters, and the last tokens, each where the one before the first was. at: the tokens in order. */
typedef struct {
    _Alignas(64) real weight[16][WIDE], bias[WIDE], rows[16][WIDE];
    const real *at[16];
} window_t;

/* Channels c .. c + m - 1. */
static void load_weights(window_t *w, const series_t *s, int64_t taps, int64_t c, int64_t m) {
    for (int64_t k = 0; k < round_up(m, LANES); k++) {
        w->bias[k] = s->bias && k < m ? load(s->bias[c + k]) : 0;
        for (int64_t j = 0; j < taps; j++) w->weight[j][k] = k < m ? load(s->weight[(c + k) * taps + j]) : 0;
    }
}

/* Token t, after t - 1. */
static inline __attribute__((always_inline)) void next_token(window_t *w, const series_t *s, const int64_t taps, int64_t t, int64_t c,
                                                           int64_t m) {
    const stored *row = t >= 0 ? s->x + t * s->x_l + c : s->state ? s->state + (taps - 1 + t) * s->e + c : NULL;
    real *to = w->rows[(t + taps) % taps];
    if (row) load_row(to, row, m);
    else memset(to, 0, sizeof(real) * WIDE);
    for (int64_t j = 0; j < taps; j++) w->at[j] = w->rows[(t + 1 + j + taps) % taps];
}

/* v of the last token, channels k on. */
static inline __attribute__((always_inline)) vec convolved(const window_t *w, const int64_t taps, int64_t k) {
    vec sum = *(const vec *)(w->bias + k);
#pragma GCC unroll 4
    for (int64_t j = 0; j < taps; j++) sum += *(const vec *)(w->weight[j] + k) * *(const vec *)(w->at[j] + k);
    return sum;
}

/* Tokens t0 .. end - 1 of channels c .. c + m - 1. y: the batch row's. */
static inline __attribute__((always_inline)) void piece_forward(window_t *w, const int64_t taps, const series_t *s, int64_t c,
                                                                    int64_t m, int64_t t0, int64_t end, stored *y) {
    for (int64_t t = t0 - taps + 1; t < end; t++) {
        next_token(w, s, taps, t, c, m);
        if (t < t0) continue;
        _Alignas(64) real out[WIDE];
        stored *to = y + t * s->e + c;
        fetch(s->x + (t + SOON) * s->x_l + c, sizeof(stored) * m);
        fetch_to_write(to + SOON * s->e, sizeof(stored) * m);
        for (int64_t k = 0; k < m; k += LANES) {
            vec v = convolved(w, taps, k);
            *(vec *)(out + k) = v / (1 + EXP_LANES(-v, 1));
        }
        store_row(to, out, m);
    }
}

/* x: (b, l, e) with strides; weight: (e, taps), bias: (e,) or NULL; state: (b, taps - 1, e) or NULL. Writes y (b, l, e) and
 * last (b, taps - 1, e), the inputs that a continuation needs. taps <= 16. */
int EXPORT(conv_forward)(int64_t threads, int64_t b, int64_t l, int64_t e, int64_t taps, const stored *x, int64_t x_b, int64_t x_l,
                     const stored *weight, const stored *bias, const stored *state, stored *y, stored *last) {
    int64_t back = taps - 1, blocks = (l + BLOCK - 1) / BLOCK, pieces = (e + WIDE - 1) / WIDE;
#define SERIES(i) {x + (i) * x_b, state ? state + (i) * back * e : NULL, weight, bias, x_l, e}
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t task = 0; task < b * blocks * pieces; task++) {
        int64_t c = task % pieces * WIDE, t0 = task / pieces % blocks * BLOCK, i = task / pieces / blocks;
        int64_t m = least(WIDE, e - c), end = least(l, t0 + BLOCK);
        series_t s = SERIES(i);
        window_t w;
        load_weights(&w, &s, taps, c, m);
        if (taps == 4) piece_forward(&w, 4, &s, c, m, t0, end, y + i * l * e);        /* as all published models have it */
        else piece_forward(&w, taps, &s, c, m, t0, end, y + i * l * e);
    }
    for (int64_t i = 0; i < b; i++)
        for (int64_t j = 0; j < back; j++) {
            int64_t t = l - back + j;
            stored *to = last + (i * back + j) * e;
            if (t >= 0) memcpy(to, ROWS(x, i, t), sizeof(stored) * e);
            else if (state) memcpy(to, state + (i * back + back + t) * e, sizeof(stored) * e);
            else memset(to, 0, sizeof(stored) * e);
        }
    return 0;
}

/* dL/dv of channels c .. c + m - 1 and tokens t0 to end, and as many more as these were part of, of l in all; to rows of WIDE numbers.
 * dy: the batch row's. Adds the gradients of the weight, a row for each tap, and of the bias to `sums`. */
static inline __attribute__((always_inline)) void piece_backward(window_t *w, const int64_t taps, const series_t *s, int64_t c,
                                                                     int64_t m, int64_t t0, int64_t end, int64_t l, const stored *dy,
                                                                     int64_t dy_l, real *dv, real *sums) {
    for (int64_t t = t0 - taps + 1; t < least(l, end + taps - 1); t++) {
        next_token(w, s, taps, t, c, m);
        if (t < t0) continue;
        real *restrict d = dv + (t - t0) * WIDE;
        fetch(s->x + (t + SOON) * s->x_l + c, sizeof(stored) * m);
        fetch(dy + (t + SOON) * dy_l + c, sizeof(stored) * m);
        load_row(d, dy + t * dy_l + c, m);
        for (int64_t k = 0; k < m; k += LANES) {
            vec v = convolved(w, taps, k), sigmoid = 1 / (1 + EXP_LANES(-v, 1));
            *(vec *)(d + k) *= sigmoid * (1 + v * (1 - sigmoid));
        }
        if (t >= end) continue;
        for (int64_t j = 0; j < taps; j++)
            for (int64_t k = 0; k < m; k++) sums[j * s->e + k] += d[k] * w->at[j][k];
        for (int64_t k = 0; k < m; k++) sums[taps * s->e + k] += d[k];
    }
}

/* dx_t = sum_j weight_j dv_{t + taps - 1 - j} of m channels, from dv's row for t on; `rows` are there, the last is token l - 1's or of
 * no part in dx_t. */
static void write_dx(stored *to, const window_t *w, int64_t taps, const real *dv, int64_t first, int64_t rows, int64_t m) {
    _Alignas(64) real sum[WIDE] = {0};
    for (int64_t j = 0; j < taps; j++) {
        int64_t at = first + taps - 1 - j;
        if (at < 0 || at >= rows) continue;
        for (int64_t k = 0; k < m; k++) sum[k] += w->weight[j][k] * dv[at * WIDE + k];
    }
    store_row(to, sum, m);
}

/* Inputs as conv_forward, and dy (b, l, e) with strides. Writes dx (b, l, e) with strides; dstate (b, taps - 1, e), may be
 * NULL; dweight (b * blocks, taps + 1, e): a sum for each piece of time, the bias last, left to the caller to add up. The
 * gradient of `last` is the caller's to add too: it is that of the last inputs. */
int EXPORT(conv_backward)(int64_t threads, int64_t b, int64_t l, int64_t e, int64_t taps, const stored *x, int64_t x_b, int64_t x_l,
                      const stored *weight, const stored *bias, const stored *state, const stored *dy, int64_t dy_b, int64_t dy_l,
                      stored *dx, int64_t dx_b, int64_t dx_l, stored *dstate, real *dweight) {
    int64_t back = taps - 1, blocks = (l + BLOCK - 1) / BLOCK, pieces = (e + WIDE - 1) / WIDE;
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        real *dv = scratch(sizeof(real) * (BLOCK + 15) * WIDE);            /* of the block and of `back` tokens on */
        if (!dv) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < b * blocks * pieces; task++) {
            if (!dv) continue;
            int64_t c = task % pieces * WIDE, block = task / pieces, t0 = block % blocks * BLOCK, i = block / blocks;
            int64_t m = least(WIDE, e - c), end = least(l, t0 + BLOCK), rows = least(l, end + back) - t0;
            real *sums = dweight + block * (taps + 1) * e + c;
            series_t s = SERIES(i);
            window_t w;
            load_weights(&w, &s, taps, c, m);
            for (int64_t j = 0; j <= taps; j++) memset(sums + j * e, 0, sizeof(real) * m);
            if (taps == 4) piece_backward(&w, 4, &s, c, m, t0, end, l, dy + i * dy_b, dy_l, dv, sums);
            else piece_backward(&w, taps, &s, c, m, t0, end, l, dy + i * dy_b, dy_l, dv, sums);
            for (int64_t t = t0 ? t0 : dstate ? -back : 0; t < end; t++) {                      /* before the first token: the state */
                fetch_to_write(ROWS(dx, i, t + SOON) + c, sizeof(stored) * m);
                stored *to = t < 0 ? dstate + (i * back + back + t) * e + c : (stored *)ROWS(dx, i, t) + c;
                write_dx(to, &w, taps, dv, t - t0, rows, m);
            }
        }
        free(dv);
    }
    return failed;
}
