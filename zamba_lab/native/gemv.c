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

#define weight float
#define ALONE 0
#define PARTS 2
#define LOAD(w, part) (part[0] = *(const vec *)(w), part[1] = *(const vec *)((w) + LANES))
#define PLACE(i) (i)
#define FN(name) name##_f32
#include "gemv.inc"

/* Two bfloat16 in each 32 bits: the lower one shifted up, and the upper one with the rest cut off, are floats. */
#define weight bf16
#define ALONE 1
#define PARTS 2
#define LOAD(w, part) \
    do { \
        pairs both = *(const pairs *)(w); \
        part[0] = (vec)(both << 16); \
        part[1] = (vec)(both & 0xffff0000u); \
    } while (0)
#define PLACE(i) ((i) % 2 * LANES + (i) / 2)
#define FN(name) name##_bf16
#include "gemv.inc"

#define weight int8_t
#define ALONE 0
#define PARTS 4
#ifdef __AVX512F__
/* No compiler makes the one instruction that widens bytes to 32 bits of the portable form below. */
#define WIDEN(w) ((vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(w)))))
#define LOAD(w, part) \
    (part[0] = WIDEN(w), part[1] = WIDEN((w) + 16), part[2] = WIDEN((w) + 32), part[3] = WIDEN((w) + 48))
#define PLACE(i) (i)
#else
/* Four int8 in each 32 bits: shifted to the top, then down with their sign, then converted. */
#define LOAD(w, part) \
    do { \
        integers four = *(const integers *)(w); \
        part[0] = __builtin_convertvector(four << 24 >> 24, vec); \
        part[1] = __builtin_convertvector(four << 16 >> 24, vec); \
        part[2] = __builtin_convertvector(four << 8 >> 24, vec); \
        part[3] = __builtin_convertvector(four >> 24, vec); \
    } while (0)
#define PLACE(i) ((i) % 4 * LANES + (i) / 4)
#endif
#define FN(name) name##_int8
#include "gemv.inc"
