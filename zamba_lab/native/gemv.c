/* A linear layer for few rows: y = x W^T + bias, then + add, for m = 1 .. 8 rows of x. Decoding is made of it.
 *
 *     x: (m, in)   W: (out, in)   bias: (out,) or NULL   add, y: (m, out)      all without gaps
 *
 * W is read once, from memory, and everything else is small: so all there is to do is not to stand in its way. W is
 * float, bfloat16, or int8 with a float scale for each row; x, bias, add and y are float, or bfloat16 where `half` is
 * set. Weights become floats in registers and sums are floats. With bfloat16 y is rounded, add added, and the sum
 * rounded again, as two operations of torch would.
 *
 * A row's sum is made in the same order whatever the number of threads and of rows, so neither changes a result.
 */
#include "simd.h"

#define LANES ((int)(VECTOR_BYTES / sizeof(float)))
/* Multiply-adds below which one thread does it all: waking another takes longer, on a busy machine far longer. */
#define PARALLEL_ABOVE 300000
#define CACHED (4 << 20)            /* bytes of W that a cache may hold from one token to the next */

#if defined(__AVX512F__) || defined(__aarch64__)
#define MOST_SUMS 16                /* vectors of sums held in registers: half of them */
#else
#define MOST_SUMS 8
#endif
#define MOST_BLOCK (4 * LANES)

typedef float vec __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef uint32_t pairs __attribute__((vector_size(VECTOR_BYTES), aligned(2), may_alias));
typedef int32_t integers __attribute__((vector_size(VECTOR_BYTES), aligned(1), may_alias));

typedef struct {
    int64_t m, in, padded, out, half;
    const float *x;                 /* (m, padded), packed */
    const void *w, *end;            /* end: of W's last row */
    const uint32_t *keep;           /* ones where a row's last block has weights */
    const float *scale;
    const void *bias, *add;
    void *y;
} job;

static inline float get(const void *t, int64_t half, int64_t i) {
    return half ? from_bf16(((const bf16 *)t)[i]) : ((const float *)t)[i];
}

static inline float rounded(float v, int64_t half) { return half ? from_bf16(to_bf16(v)) : v; }

static inline float total(vec v) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)v);
#else
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
#endif
}

/* From a sum of products to an element of y. */
static inline void finish(const job *j, int64_t i, int64_t row, float sum) {
    int64_t at = i * j->out + row;
    if (j->scale) sum *= j->scale[row];
    if (j->bias) sum += get(j->bias, j->half, row);
    if (j->add) sum = rounded(sum, j->half) + get(j->add, j->half, at);
    if (j->half) ((bf16 *)j->y)[at] = to_bf16(sum);
    else ((float *)j->y)[at] = sum;
}

/* One dtype of weights: `unpack` turns the next BLOCK of them into PARTS vectors of floats, and `place` says where among these the i-th
 * goes. ONE_BY_ONE: whether rows are best read one after the other. */
#if defined(TYPE_f32)
typedef float weight;
#define EXPORT(name) name##_f32
#define PARTS 2
#define ONE_BY_ONE 0
static inline void unpack(const weight *w, vec *part) {
    for (int i = 0; i < PARTS; i++) part[i] = *(const vec *)(w + i * LANES);
}
static inline int place(int i) { return i; }

#elif defined(TYPE_bf16)
/* Two in each 32 bits: the lower one shifted up, and the upper one with the rest cut off, are floats. */
typedef bf16 weight;
#define EXPORT(name) name##_bf16
#define PARTS 2
#define ONE_BY_ONE 1
static inline void unpack(const weight *w, vec *part) {
    pairs both = *(const pairs *)w;
    part[0] = (vec)(both << 16);
    part[1] = (vec)(both & 0xffff0000u);
}
static inline int place(int i) { return i % 2 * LANES + i / 2; }

#else
typedef int8_t weight;
#define EXPORT(name) name##_int8
#define PARTS 4
#define ONE_BY_ONE 0
#ifdef __AVX512F__
/* No compiler makes the one instruction that widens bytes to 32 bits of the portable form below. */
static inline void unpack(const weight *w, vec *part) {
    for (int i = 0; i < PARTS; i++)
        part[i] = (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(w + 16 * i))));
}
static inline int place(int i) { return i; }
#else
/* Four in each 32 bits: shifted to the top, then down with their sign, then converted. */
static inline void unpack(const weight *w, vec *part) {
    integers four = *(const integers *)w;
    part[0] = __builtin_convertvector(four << 24 >> 24, vec);
    part[1] = __builtin_convertvector(four << 16 >> 24, vec);
    part[2] = __builtin_convertvector(four << 8 >> 24, vec);
    part[3] = __builtin_convertvector(four >> 24, vec);
}
static inline int place(int i) { return i % 4 * LANES + i / 4; }
#endif
#endif

#define BLOCK (PARTS * LANES)

/* The last weights of a row, fewer than a block, followed by zeros. */
static const weight *with_zeros(weight *block, const weight *from, int64_t n) {
    memset(block, 0, sizeof(weight) * BLOCK);
    return memcpy(block, from, sizeof(weight) * n);
}

/* `rows` rows of W, `step` apart, times m rows of x, rows and m constants of the caller: sums[r * m + i]. */
static inline __attribute__((always_inline)) void block(const int rows, const int m, const job *j, const weight *w,
                                                            int64_t step, float *sums) {
    int64_t in = j->in, padded = j->padded;
    const float *x = j->x;
    vec acc[MOST_SUMS];
#pragma GCC unroll 16
    for (int i = 0; i < rows * m; i++) acc[i] = (vec){0};
    int64_t k = 0;
    for (; k + BLOCK <= in; k += BLOCK)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const weight *from = w + r * step + k;
            fetch(rows == 1 ? (const char *)from + AHEAD : (const char *)(from + rows * step), BLOCK * sizeof(weight));
            vec part[PARTS];
            unpack(from, part);
#pragma GCC unroll 8
            for (int i = 0; i < m; i++)
#pragma GCC unroll 4
                for (int l = 0; l < PARTS; l++) acc[r * m + i] += part[l] * *(const vec *)(x + i * padded + k + l * LANES);
        }
    if (k < in)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const weight *from = w + r * step + k;
            weight tail[BLOCK];
            if (from + BLOCK > (const weight *)j->end) from = with_zeros(tail, from, in - k);
            vec part[PARTS];
            unpack(from, part);
#pragma GCC unroll 4
            for (int l = 0; l < PARTS; l++) part[l] = (vec)((pairs)part[l] & *(const pairs *)(j->keep + l * LANES));
#pragma GCC unroll 8
            for (int i = 0; i < m; i++)
#pragma GCC unroll 4
                for (int l = 0; l < PARTS; l++) acc[r * m + i] += part[l] * *(const vec *)(x + i * padded + k + l * LANES);
        }
#pragma GCC unroll 16
    for (int i = 0; i < rows * m; i++) sums[i] = total(acc[i]);
}

/* Rows first .. last - 1 of W, `together` at a time and those left over one by one. m: how many rows of x there are places
 * for; what is in places without a row is dropped. */
static inline __attribute__((always_inline)) void rows_of_w(const int together, const int m, const job *j, int64_t first,
                                                           int64_t last) {
    float sums[MOST_SUMS];
    for (int64_t row = first, n; row < last; row += n) {
        n = last - row < together ? 1 : together;
        block(together, m, j, (const weight *)j->w + row * j->in, n == 1 ? 0 : j->in, sums);
        for (int r = 0; r < n; r++)
            for (int i = 0; i < j->m; i++) finish(j, i, row + r, sums[r * m + i]);
    }
}

/* Several rows at once take fewer instructions; one after the other is one stream of addresses, which memory gives faster
 * where a block is a line. A row's sum is the same. */
static inline __attribute__((always_inline)) void share_of_w(const int m, const job *j, int64_t first, int64_t last) {
    if (ONE_BY_ONE && m == 1 && j->out * j->in * (int64_t)sizeof(weight) > CACHED) rows_of_w(1, m, j, first, last);
    else rows_of_w(MOST_SUMS / m < 4 ? MOST_SUMS / m : 4, m, j, first, last);
}

/* One row of x as floats, each where its weight will be, and zeros up to whole blocks. */
static void pack(float *to, const void *x, int64_t half, int64_t from, int64_t in) {
    int64_t k = 0;
    if (half)
        for (const bf16 *row = (const bf16 *)x + from; k + BLOCK <= in; k += BLOCK)
            for (int i = 0; i < BLOCK; i++) to[k + place(i)] = from_bf16(row[k + i]);
    else
        for (const float *row = (const float *)x + from; k + BLOCK <= in; k += BLOCK)
            for (int i = 0; i < BLOCK; i++) to[k + place(i)] = row[k + i];
    if (k < in)
        for (int i = 0; i < BLOCK; i++) to[k + place(i)] = k + i < in ? get(x, half, from + k + i) : 0;
}

/* See gemv.c. Returns 0, or 1 if there is no memory. */
int EXPORT(gemv)(int64_t threads, int64_t m, int64_t out, int64_t in, int64_t half, const void *x, const weight *w,
             const float *scale, const void *bias, const void *add, void *y) {
    int64_t padded = round_up(in, BLOCK), places = m <= 2 ? m : m <= 4 ? 4 : 8;
    float *packed = scratch(sizeof(float) * places * padded);
    if (!packed) return 1;
    for (int64_t i = 0; i < m; i++) pack(packed + i * padded, x, half, i * in, in);
    memset(packed + m * padded, 0, sizeof(float) * (places - m) * padded);
    uint32_t keep[MOST_BLOCK];
    for (int i = 0; i < BLOCK; i++) keep[place(i)] = i < in % BLOCK ? ~0u : 0;
    job j = {m, in, padded, out, half, packed, w, w + out * in, keep, scale, bias, add, y};
    if (places * out * in < PARALLEL_ABOVE) threads = 1;
    int64_t share = round_up((out + threads - 1) / threads, 4);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t part = 0; part < threads; part++) {
        int64_t first = least(part * share, out), last = least(first + share, out);
        if (places == 1) share_of_w(1, &j, first, last);
        else if (places == 2) share_of_w(2, &j, first, last);
        else if (places == 4) share_of_w(4, &j, first, last);
        else share_of_w(8, &j, first, last);
    }
    free(packed);
    return 0;
}

int EXPORT(gemv_packed)(const slot *a) {
    return EXPORT(gemv)(a[0].i, a[1].i, a[2].i, a[3].i, a[4].i, a[5].p, a[6].p, a[7].p, a[8].p, a[9].p, a[10].p);
}
