/* The exponential of a whole vector.
 *
 * For floats by the classic reduction (Cody & Waite 1980, "Software Manual for the Elementary Functions"):
 * x = k ln 2 + r with k whole and |r| <= ln 2 / 2, where ln 2 comes in two parts so that k times the first is exact;
 * then exp(x) = 2^k exp(r), with 2^k made from bits and exp(r) = 1 + r + r^2 q(r), q fitted to the least relative error
 * (3e-9). The constant term is 1, so exp(0) is 1 and a step of dt = 0 leaves a state as it was, bit for bit.
 *
 * Within 1.2 units in the last place. Below -87.6, where 2^k would be subnormal, it is 0 (arithmetic on subnormals costs
 * a hundred times as much); above 88.3, infinity, a little early; NaN stays NaN. All that if `careful`; without, |x|
 * must be below MILD, and where it is both give the same bits.
 */
#ifndef ZAMBA_EXP_H
#define ZAMBA_EXP_H

#include "simd.h"

typedef float floats __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef int32_t float_bits __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef double doubles __attribute__((vector_size(VECTOR_BYTES), may_alias));

/* Where the mask is set (all ones) a, elsewhere b. */
static inline floats pick_floats(float_bits mask, floats a, floats b) {
    return (floats)((mask & (float_bits)a) | (~mask & (float_bits)b));
}

/* Of each two the larger, or the smaller; where one is NaN, the second. */
#ifdef __AVX512F__
static inline floats larger(floats a, floats b) { return (floats)_mm512_max_ps((__m512)a, (__m512)b); }
static inline floats smaller(floats a, floats b) { return (floats)_mm512_min_ps((__m512)a, (__m512)b); }
#else
static inline floats larger(floats a, floats b) { return pick_floats(a > b, a, b); }
static inline floats smaller(floats a, floats b) { return pick_floats(a < b, a, b); }
#endif

#define MILD 87

static inline floats exp_floats(floats x, int careful) {
    const float rounder = 12582912.0f + 127;     /* 1.5 * 2^23: adding it rounds to whole; 127: the exponent's bias */
    if (careful) x = smaller((floats){0} + 89.0f, larger((floats){0} - 88.0f, x));     /* there 2^k is 0 and infinity */
    floats shifted = x * 1.44269504f + rounder;
    floats k = shifted - rounder;
    floats r = x - k * 0x1.62e4p-1f;
    r = r - k * 0x1.7f7d1cp-20f;
    floats y = r * 0x1.6a2434p-10f + 0x1.1239e2p-7f;
    y = y * r + 0x1.5558f2p-5f;
    y = y * r + 0x1.555492p-3f;
    y = y * r + 0x1.fffffcp-2f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    return y * (floats)((float_bits)shifted << 23);
}

static inline doubles exp_doubles(doubles x, int careful) {
    (void)careful;
    for (int i = 0; i < (int)(VECTOR_BYTES / sizeof(double)); i++) x[i] = exp(x[i]);
    return x;
}

#endif
