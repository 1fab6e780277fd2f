/* The Mamba-2 SSD scan, forward (backward: ssd_backward.inc), compiled once for each dtype: `real` computes, `stored` is what tensors hold.
 *
 *     S_t = a_t S_{t-1} + B_t u_t^T      y_t = S_t^T C_t + D x_t      u_t = dt_t x_t      a_t = exp(dt_t A)
 *
 * A chunk of CHUNK tokens at a time, as in the published chunked form (Dao & Gu 2024, "Transformers are SSMs", section 6):
 *
 *     y_t = e_t S_0^T C_t + sum_{s <= t} m_ts u_s      m_ts = d_ts C_t . B_s      d_ts = a_{s+1} ... a_t
 *     S_1 = d S_0 + sum_s f_s B_s u_s^T                e_t = a_1 ... a_t      f_s = a_{s+1} ... a_q      d = a_1 ... a_q
 *
 * but with chunks so short that all of a head's tables stay in the first caches, and decays made by multiplying, so that no
 * quotient or difference of large numbers comes up. What all heads of a group share, B and C in rows without gaps and
 * C_t . B_s, is made once, before the heads. All matrix products are `product`, a tile of the result in registers.
 */
#include "types.h"

#define CHUNK 32         /* tokens that are multiplied as matrices; ssd.py says the same */

#define PAD (LANES > 8 ? LANES : 8)                     /* lengths of rows, and numbers of them, are multiples of it */
#define LEAST_DECAY (sizeof(real) == 4 ? (real)1e-30 : (real)1e-290)   /* less counts as 0: subnormals are slow */
typedef __typeof__((vec){0} < (vec){0}) mask_t;

/* left times right: sum_k left[i * row + k * step] right[k * width ...], over k < count. */
typedef struct {
    const real *left;
    int64_t row, step;
    const real *right;
    int64_t count;
} terms_t;

/* Which terms of `two` count in row i: those with k <= i, or those with k >= i. The others are not even read as zeros, since 0
 * times infinity is no zero: what a token is given shows in no earlier one. */
enum which { lower, upper };

/* R rows and V vectors of `product`. R and V are constants where this is called, and the sums stay in registers. */
static inline __attribute__((always_inline)) void tile(const int R, const int V, int64_t width, int64_t i, int64_t lane,
        const terms_t *one, const real *scale, const terms_t *two, const enum which which, real keep,
        const real *before, real *out) {
    vec sum[8][4];
#define EACH_SUM _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) _Pragma("GCC unroll 4") for (int v = 0; v < V; v++)
#define ADD(IF) EACH_SUM if (IF) sum[r][v] += a[r * row] * ((const vec *)b)[v]; a += step, b += width
    EACH_SUM sum[r][v] = (vec){0};
    int64_t row = one->row, step = one->step;
    const real *a = one->left + i * row, *b = one->right + lane;
    for (int64_t k = one->count; k > 0; k--) { ADD(1); }
    if (scale) EACH_SUM sum[r][v] *= scale[i + r];
    if (two) {
        int64_t from = which == upper ? i : 0;
        row = two->row, step = two->step;
        a = two->left + i * row + from * step, b = two->right + lane + from * width;
        for (int64_t k = which == lower ? i : 0; k > 0; k--) { ADD(1); }
#pragma GCC unroll 8
        for (int on = 0; on < R; on++) { ADD(which == lower ? r >= on : r <= on); }
        for (int64_t k = which == upper ? two->count - i - R : 0; k > 0; k--) { ADD(1); }
    }
    EACH_SUM {
        int64_t at = (i + r) * width + lane + v * LANES;
        if (before) sum[r][v] += keep * *(const vec *)(before + at);
        *(vec *)(out + at) = sum[r][v];
    }
#undef ADD
#undef EACH_SUM
}

/* out (rows, width) = keep * before + scale_i * one + two: before, scale and two may be NULL, before may be out. rows and
 * width are multiples of PAD, and so wide are the rows on the right of both. `which` is a constant where this is called. */
static inline __attribute__((always_inline)) void products(int64_t rows, int64_t width, const terms_t *one,
        const real *scale, const terms_t *two, const enum which which, real keep, const real *before, real *out) {
#define COLUMNS(R, V) \
    for (int64_t i = 0; i < rows; i += R) tile(R, V, width, i, lane, one, scale, two, which, keep, before, out); \
    lane += V * LANES
    for (int64_t lane = 0; lane < width;) {
        int64_t left = (width - lane) / LANES;
        if (MOST_SUMS == 16 && left >= 4) { COLUMNS(4, 4); }
        else if (left >= 2) { COLUMNS(MOST_SUMS / 2, 2); }
        else { COLUMNS(8, 1); }
    }
#undef COLUMNS
}

static void product(int64_t rows, int64_t width, const terms_t *one, real keep, const real *before, real *out) {
    products(rows, width, one, NULL, NULL, lower, keep, before, out);
}
static void product_lower(int64_t rows, int64_t width, const terms_t *one, const real *scale, const terms_t *two,
                              real keep, const real *before, real *out) {
    products(rows, width, one, scale, two, lower, keep, before, out);
}
static void product_upper(int64_t rows, int64_t width, const terms_t *one, const real *scale, const terms_t *two,
                              real keep, const real *before, real *out) {
    products(rows, width, one, scale, two, upper, keep, before, out);
}

/* Rows of `width` numbers, `step` apart, become rows of `padded` numbers, and zeros after the last up to CHUNK rows. The chunk
 * that follows, `soon` rows on, is asked for: rows are far apart, and no processor sees that they follow. */
static void pack(real *to, int64_t padded, const stored *from, int64_t step, int64_t rows, int64_t width, int64_t soon) {
    for (int64_t t = 0; t < rows; t++, to += padded, from += step) {
        fetch(from + soon * step, sizeof(stored) * width);
        for (int64_t i = 0; i < width; i++) to[i] = load(from[i]);
        for (int64_t i = width; i < padded; i++) to[i] = 0;
    }
    memset(to, 0, sizeof(real) * (CHUNK - rows) * padded);
}

/* sum_i a_i b_i, still in lanes, of vectors padded to whole registers. */
static inline __attribute__((always_inline)) vec dots(const real *a, const real *b, int64_t n) {
    vec sums = {0};
    for (int64_t i = 0; i < n; i += LANES) sums += *(const vec *)(a + i) * *(const vec *)(b + i);
    return sums;
}

/* Element (i, j) of a matrix with these strides, or its transposed, becomes to[i * width + j]; elsewhere zeros. */
static void load_state(real *to, int64_t rows, int64_t width, const real *from, int64_t n_rows, int64_t n_columns,
                           int64_t row_step, int64_t column_step) {
    memset(to, 0, sizeof(real) * rows * width);
    if (!from) return;
    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t j = 0; j < n_columns; j++) to[i * width + j] = from[i * row_step + j * column_step];
}

static void store_state(real *to, const real *S, int64_t width, int64_t p, int64_t n) {
    for (int64_t i = 0; i < p; i++)
        for (int64_t j = 0; j < n; j++) to[i * n + j] = S[j * width + i];
}

/* What the heads of a group share, of one chunk: C_t . B_s, and B and C in rows without gaps, zeros after the last. */
typedef struct {
    real *CB, *B, *C;
} shared_t;

static inline int64_t shared_size(int64_t N) { return CHUNK * (CHUNK + 2 * N); }
static inline shared_t shared_at(real *work, int64_t index, int64_t N) {
    real *at = work + index * shared_size(N);
    return (shared_t){at, at + CHUNK * CHUNK, at + CHUNK * (CHUNK + N)};
}

/* For all chunks of all groups; turned: scratch of N * CHUNK numbers. One part of a parallel region. */
static void share(real *work, real *turned, int64_t N, int64_t b, int64_t l, int64_t g, int64_t n, const stored *B, int64_t B_b,
                      int64_t B_l, const stored *C, int64_t C_b, int64_t C_l) {
    int64_t chunks = (l + CHUNK - 1) / CHUNK;
#pragma omp for schedule(static)
    for (int64_t task = 0; task < b * g * chunks; task++) {
        if (!turned) continue;
        int64_t t0 = task % chunks * CHUNK, group = task / chunks % g, i = task / chunks / g, q = least(CHUNK, l - t0);
        shared_t s = shared_at(work, task, N);
        pack(s.B, N, ROWS(B, i, t0) + group * n, B_l, q, n, CHUNK);
        pack(s.C, N, ROWS(C, i, t0) + group * n, C_l, q, n, CHUNK);
        for (int64_t t = 0; t < CHUNK; t++)
            for (int64_t j = 0; j < N; j++) turned[j * CHUNK + t] = s.B[t * N + j];
        product(CHUNK, CHUNK, &(terms_t){s.C, N, 1, turned, N}, 0, NULL, s.CB);
    }
}

/* The decays of one head in a chunk, as above, and dt, which after the last token is 0; fed: f_t dt_t, of what the state is fed. */
typedef struct {
    real step[CHUNK], a[CHUNK], e[CHUNK], f[CHUNK], fed[CHUNK], d;
} decays_t;

static void find_decays(decays_t *to, const real *dt, int64_t dt_step, real A, int64_t q) {
    for (int64_t t = 0; t < CHUNK; t++) to->step[t] = t < q ? dt[t * dt_step] : 0;
    for (int64_t t = 0; t < CHUNK; t++) to->a[t] = EXP(to->step[t] * A);
    double since = 1, until = 1;                        /* double: no subnormals on the way, at any decay that leaves anything */
    for (int64_t t = 0, back = CHUNK - 1; t < CHUNK; t++, back--) {
        since *= to->a[t];
        to->e[t] = since < LEAST_DECAY ? 0 : since;
        to->f[back] = until < LEAST_DECAY ? 0 : until;
        until *= to->a[back];
    }
    for (int64_t t = 0; t < CHUNK; t++) to->fed[t] = to->f[t] * to->step[t];
    to->d = to->e[CHUNK - 1];
}

/* d_ts and m_ts for the first `rows` tokens, zeros where s > t; a row is CHUNK numbers. d may be NULL. */
static void mix(real *m, real *d, const real *CB, const real *a, int64_t rows) {
    vec now[CHUNK / (VECTOR_BYTES / sizeof(real))] = {{0}};
    real one[2 * CHUNK] = {0};                          /* from its middle - t on: a row of zeros with 1 at t */
    one[CHUNK] = 1;
    for (int64_t t = 0; t < rows; t++, m += CHUNK, CB += CHUNK) {
        vec decay = (vec){0} + a[t];
        for (int64_t v = 0; v < CHUNK / LANES; v++) {
            vec start;
            memcpy(&start, one + CHUNK - t + v * LANES, sizeof(vec));
            vec left = now[v] * decay;
            now[v] = (vec)((mask_t)left & (mask_t)(left >= LEAST_DECAY)) + start;
            *(vec *)(m + v * LANES) = now[v] * *(const vec *)(CB + v * LANES);
            if (d) *(vec *)(d + t * CHUNK + v * LANES) = now[v];
        }
    }
}

/* Row t of a chunk, P numbers, times by[t]. */
static void scale_rows(real *to, const real *from, const real *by, int64_t P) {
    for (int64_t t = 0; t < CHUNK; t++)
        for (int64_t c = t * P; c < (t + 1) * P; c++) to[c] = by[t] * from[c];
}

/* x: (b, l, h, p); dt: (b, l, h) contiguous; A: (h,); B, C: (b, l, g, n); state: (b, h, p, n) or NULL; D: (h,) or NULL.
 * work: room for shared_size numbers a group and chunk. Writes y, like x, and last, like state, both contiguous. Returns 0,
 * or 1 if there is no memory. */
int EXPORT(ssd_forward)(int64_t threads, int64_t b, int64_t l, int64_t h, int64_t p, int64_t g, int64_t n,
                    const stored *x, int64_t x_b, int64_t x_l, const real *dt, const real *A, const stored *B, int64_t B_b,
                    int64_t B_l, const stored *C, int64_t C_b, int64_t C_l, const real *D, const real *state, real *work, stored *y,
                    real *last) {
    int64_t P = round_up(p, PAD), N = round_up(n, PAD), chunks = (l + CHUNK - 1) / CHUNK;
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        real *S = scratch(sizeof(real) * (P * N + CHUNK * (4 * P + CHUNK + N)));
        real *xs = S + P * N, *u = xs + CHUNK * P, *after = u + CHUNK * P, *o = after + CHUNK * P, *m = o + CHUNK * P;
        real *turned = m + CHUNK * CHUNK;
        if (!S) {
#pragma omp atomic write
            failed = 1;
        }
        share(work, S ? turned : NULL, N, b, l, g, n, B, B_b, B_l, C, C_b, C_l);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < b * h; task++) {
            if (!S) continue;
            int64_t i = task / h, head = task % h, group = head / (h / g);
            real skip = D ? D[head] : 0;
            load_state(S, N, P, state ? state + task * p * n : NULL, n, p, 1, n);
            fetch_to_write(last + task * p * n, sizeof(real) * p * n);
            for (int64_t chunk = 0; chunk < chunks; chunk++) {
                int64_t t0 = chunk * CHUNK, q = least(CHUNK, l - t0), rows = round_up(q, 8);
                shared_t s = shared_at(work, (i * g + group) * chunks + chunk, N);
                decays_t decays;
                find_decays(&decays, dt + (i * l + t0) * h + head, h, A[head], q);
                pack(xs, P, ROWS(x, i, t0) + head * p, x_l, q, p, CHUNK);
                scale_rows(u, xs, decays.step, P);
                scale_rows(after, u, decays.f, P);
                mix(m, NULL, s.CB, decays.a, rows);
                terms_t within = {m, CHUNK, 1, u, rows};
                product_lower(rows, P, &(terms_t){s.C, N, 1, S, chunk || state ? N : 0}, decays.e, &within, 0, NULL, o);
                product(N, P, &(terms_t){s.B, 1, N, after, q}, decays.d, S, S);
                for (int64_t t = 0; t < q; t++) {
                    stored *yt = y + ((i * l + t0 + t) * h + head) * p;
                    if (t0 + t + CHUNK < l) fetch_to_write(yt + CHUNK * h * p, sizeof(stored) * p);
                    for (int64_t c = 0; c < p; c++) yt[c] = store(o[t * P + c] + skip * xs[t * P + c]);
                }
            }
            store_state(last + task * p * n, S, P, p, n);
        }
        free(S);
    }
    return failed;
}

#include "ssd_backward.inc"

#undef PAD
#undef LEAST_DECAY
