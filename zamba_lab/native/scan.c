/* The Mamba-1 selective scan, forward and backward, compiled once for each dtype: `real` computes, `stored` is what tensors hold.
 *
 * Per channel, its n states elementwise, with u_t = dt_t x_t and a_t = exp(dt_t A):
 *
 *     S_t = a_t S_{t-1} + u_t B_t        y_t = <S_t, C_t> + D x_t
 *
 * and with the adjoint G_t = a_{t+1} G_{t+1} + C_t dy_t, which runs back in time, and e_t = a_t G_t S_{t-1}:
 *
 *     du_t = <G_t, B_t>    dB_t = sum over channels of G_t u_t    dC_t = sum over channels of S_t dy_t
 *     dx_t = dt_t du_t + D dy_t    ddt_t = x_t du_t + <e_t, A>    dA = sum_t e_t dt_t    dD = sum_t x_t dy_t
 *
 * Lanes of a vector are channels: nothing is summed across them but dB and dC, once for a run of channels. Time goes
 * in chunks. Forward keeps the state before each chunk, backward starts from it, runs a tile of rows through the chunk
 * keeping a_t and a_t S_{t-1} in the first cache, and comes back. Work is cut by batch row, head and run of channels.
 */
#include "types.h"

#define SCAN_CHUNK 32    /* tokens between two states that are kept; scan.py says the same */
#define SCAN_TILE 4      /* rows of state run through a chunk at a time: their buffers fit the first cache */

typedef real piece_t __attribute__((vector_size(16), may_alias));

/* Both scans' scratch is made of blocks of LANES channels: a token's numbers are [block][lane], a state's
 * [block][row][lane], so that a tile of rows of one block lies together. */

/* q rows of `width` numbers, `step` apart, into rows of `padded` numbers: zeros behind. */
static void unpack(real *to, int64_t padded, const stored *from, int64_t step, int64_t q, int64_t width) {
    for (int64_t t = 0; t < q; t++, to += padded, from += step) {
        for (int64_t i = 0; i < width; i++) to[i] = load(from[i]);
        for (int64_t i = width; i < padded; i++) to[i] = 0;
    }
}

static void unpack_real(real *to, int64_t padded, const real *from, int64_t step, int64_t q, int64_t width) {
    for (int64_t t = 0; t < q; t++, to += padded, from += step) {
        memcpy(to, from, sizeof(real) * width);
        memset(to + width, 0, sizeof(real) * (padded - width));
    }
}

/* A (p, n) matrix, or zeros for NULL, into blocks of padded width (P, N), and back. */
static void to_blocks(real *to, int64_t P, int64_t N, const real *from, int64_t p, int64_t n) {
    memset(to, 0, sizeof(real) * P * N);
    for (int64_t c = 0; from && c < p; c++)
        for (int64_t j = 0; j < n; j++) to[(c / LANES * N + j) * LANES + c % LANES] = from[c * n + j];
}

static void from_blocks(real *to, const real *from, int64_t N, int64_t p, int64_t n) {
    for (int64_t c = 0; c < p; c++)
        for (int64_t j = 0; j < n; j++) to[c * n + j] = from[(c / LANES * N + j) * LANES + c % LANES];
}

/* Of a vector in memory: by pieces of 16 bytes, which every machine has. */
static inline real sum_lanes(const vec *v) {
    const int piece = 16 / sizeof(real);
    const piece_t *parts = (const piece_t *)v;
    piece_t sum = parts[0];
    for (int i = 1; i < VECTOR_BYTES / 16; i++) sum += parts[i];
    return piece == 2 ? sum[0] + sum[1] : (sum[0] + sum[1]) + (sum[2 % piece] + sum[3 % piece]);
}

/* For each channel, up to which |dt| no decay needs a careful exponential. */
static void limits(real *to, int64_t width, int64_t N, const real *A) {
    for (int64_t c = 0; c < width; c++) {
        real most = 0;
        for (int64_t j = 0; j < N; j++) {
            real rate = A[(c / LANES * N + j) * LANES + c % LANES];
            most = rate > most ? rate : -rate > most ? -rate : most;
        }
        to[c] = MILD / most;
    }
}

/* Whether one of a block's q steps is beyond its limit. A NaN is not: it survives either exponential. */
static int needs_care(int64_t q, int64_t W, const real *dt, const real *limits) {
    vec limit = *(const vec *)limits;
    __typeof__(limit > limit) beyond = limit < limit;
    for (int64_t t = 0; t < q; t++) {
        vec step = *(const vec *)(dt + t * W);
        beyond |= (step > limit) | (step < -limit);
    }
    int any = 0;
    for (int i = 0; i < LANES; i++) any |= beyond[i] != 0;
    return any;
}

/* q tokens of one tile of one block. dt, x, y: rows W apart; B, C: rows N apart; y is added to. */
static inline void tile_forward(int careful, int64_t q, int64_t W, int64_t N, const real *dt, const real *x,
                                    const real *A, const real *B, const real *C, real *S, real *y) {
    vec s[SCAN_TILE], rate[SCAN_TILE];
    for (int j = 0; j < SCAN_TILE; j++) s[j] = ((vec *)S)[j], rate[j] = ((const vec *)A)[j];
    for (int64_t t = 0; t < q; t++, dt += W, x += W, y += W, B += N, C += N) {
        vec step = *(const vec *)dt, u = step * *(const vec *)x, sum = *(vec *)y;
#pragma GCC unroll 8
        for (int j = 0; j < SCAN_TILE; j++) {
            s[j] = EXP_LANES(step * rate[j], careful) * s[j] + u * B[j];
            sum += s[j] * C[j];
        }
        *(vec *)y = sum;
    }
    for (int j = 0; j < SCAN_TILE; j++) ((vec *)S)[j] = s[j];
}

static void block_forward(int64_t q, int64_t W, int64_t N, const real *dt, const real *x, const real *A,
                              const real *limits, const real *B, const real *C, real *S, real *y) {
    int careful = needs_care(q, W, dt, limits);
    for (int64_t j = 0; j < N; j += SCAN_TILE, A += SCAN_TILE * LANES, S += SCAN_TILE * LANES)
        if (careful) tile_forward(1, q, W, N, dt, x, A, B + j, C + j, S, y);
        else tile_forward(0, q, W, N, dt, x, A, B + j, C + j, S, y);
}

/* The sizes of a call and where one task stands in it: batch row i, a head, channels c0 to c0 + width of it. */
typedef struct {
    int64_t b, l, h, p, n, i, head, c0, width;
} place_t;

static place_t place_of(int64_t task, int64_t parts, int64_t b, int64_t l, int64_t h, int64_t p, int64_t n) {
    int64_t blocks = (p + LANES - 1) / LANES, part = task / (b * h);
    int64_t c0 = part * blocks / parts * LANES, c1 = least(p, (part + 1) * blocks / parts * LANES);
    place_t at = {b, l, h, p, n, task / h % b, task % h, c0, c1 - c0};
    return at;
}

/* Where a tensor (b, l, h, ...) starts for a token and head: three axes have strides, the last has no gaps. */
#ifndef AT
#define AT(t, i, l, head) ((t) + (i) * t##_b + (l) * t##_l + (head) * t##_h)
/* The same of a tensor without gaps, `width` its last axis. */
#define DENSE(t, width, i, l0, head) ((t) + (((i) * l + (l0)) * h + (head)) * (width))
/* The state before a chunk, in blocks: (b, h, chunks, p rounded to 16, n rounded to the tile). */
#define START(t, chunk) ((t) + ((((at.i * h + at.head) * chunks + (chunk)) * round_up(p, 16) + at.c0) * N))
#endif

/* x, dt: (b, l, h, p); A: (h, p, n); B, C: (b, l, h, n); D: (h, p) or NULL; state: (b, h, p, n) or NULL.
 * Writes y, like x, last, like state, and starts unless NULL. Returns 0, or 1 if there is no memory. */
int EXPORT(scan_forward)(int64_t threads, int64_t parts, int64_t b, int64_t l, int64_t h, int64_t p, int64_t n,
                     const stored *x, int64_t x_b, int64_t x_l, int64_t x_h, const real *dt, int64_t dt_b, int64_t dt_l,
                     int64_t dt_h, const real *A, const stored *B, int64_t B_b, int64_t B_l, int64_t B_h, const stored *C,
                     int64_t C_b, int64_t C_l, int64_t C_h, const real *D, const real *state, stored *y, real *last,
                     real *starts) {
    int64_t N = round_up(n, SCAN_TILE), W = (p / LANES / parts + 2) * LANES, chunks = (l + SCAN_CHUNK - 1) / SCAN_CHUNK;
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        real *S = scratch(sizeof(real) * (2 * W * N + SCAN_CHUNK * (3 * W + 2 * N) + W));
        real *rate = S + W * N, *xs = rate + W * N, *dts = xs + SCAN_CHUNK * W, *ys = dts + SCAN_CHUNK * W;
        real *Bs = ys + SCAN_CHUNK * W, *Cs = Bs + SCAN_CHUNK * N, *limit = Cs + SCAN_CHUNK * N;
        if (!S) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < parts * b * h; task++) {
            place_t at = place_of(task, parts, b, l, h, p, n);
            if (!S) continue;
            int64_t width = round_up(at.width, LANES), matrix = ((at.i * h + at.head) * p + at.c0) * n;
            to_blocks(rate, width, N, A + (at.head * p + at.c0) * n, at.width, n);
            limits(limit, width, N, rate);
            to_blocks(S, width, N, state ? state + matrix : NULL, at.width, n);
            for (int64_t t0 = 0; t0 < l; t0 += SCAN_CHUNK) {
                int64_t q = least(SCAN_CHUNK, l - t0);
                if (starts) memcpy(START(starts, t0 / SCAN_CHUNK), S, sizeof(real) * width * N);
                unpack(xs, W, AT(x, at.i, t0, at.head) + at.c0, x_l, q, at.width);
                unpack_real(dts, W, AT(dt, at.i, t0, at.head) + at.c0, dt_l, q, at.width);
                unpack(Bs, N, AT(B, at.i, t0, at.head), B_l, q, n);
                unpack(Cs, N, AT(C, at.i, t0, at.head), C_l, q, n);
                memset(ys, 0, sizeof(real) * q * W);
                for (int64_t c = 0; c < width; c += LANES)
                    block_forward(q, W, N, dts + c, xs + c, rate + c * N, limit + c, Bs, Cs, S + c * N, ys + c);
                for (int64_t t = 0; t < q; t++) {
                    stored *to = DENSE(y, p, at.i, t0 + t, at.head) + at.c0;
                    const real *skip = D ? D + at.head * p + at.c0 : NULL;
                    for (int64_t c = 0; c < at.width; c++)
                        to[c] = store(ys[t * W + c] + (skip ? skip[c] * xs[t * W + c] : 0));
                }
            }
            from_blocks(last + matrix, S, N, at.width, n);
        }
        free(S);
    }
    return failed;
}

#include "scan_backward.inc"
