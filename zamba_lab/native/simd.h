/* What all kernels share: vectors as wide as the machine's, element types, and scratch memory.
 *
 * Vectors are the compiler's own extension (gcc and clang, x86 and ARM), so there is one source and no intrinsics but
 * where the text says so. Kernels work on rows padded with zeros to whole
 * vectors, which packing makes from tensors of any width, stride and element type.
 */
#ifndef ZAMBA_SIMD_H
#define ZAMBA_SIMD_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define VECTOR_BYTES 64
#define MOST_SUMS 16     /* vectors of sums that a product holds in registers: 16 of 32 */
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#define MOST_SUMS 8      /* 8 of 16 */
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define MOST_SUMS 16     /* 16 of 32 */
#else
#define VECTOR_BYTES 16
#define MOST_SUMS 8
#endif

typedef uint16_t bf16;   /* the upper half of a float */

/* An argument of a packed call (program.py): an integer, a number or an address, as the function it is for wants it. */
typedef union {
    int64_t i;
    double d;
    void *p;
} slot;

static inline uint32_t bits_of(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return bits;
}
static inline float float_of(uint32_t bits) {
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

static inline float from_bf16(bf16 v) {
    return float_of((uint32_t)v << 16);
}
/* To the nearest, ties to even, as torch rounds; NaN stays NaN. */
static inline bf16 to_bf16(float v) {
    uint32_t bits = bits_of(v);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (bf16)rounded;
}

static inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* exp to about one unit in the last place, without branches, so that the compiler makes vectors of it. x = k ln 2 + r with
 * |r| <= ln 2 / 2; exp r by its Taylor series, whose rest after r^7 is 5e-9; 2^k in two factors, each a plain exponent, so
 * that results below the normal range and above the largest float come out as they should. NaN stays NaN. */
static inline float exp_float(float x) {
    const float magic = 12582912;                       /* 1.5 * 2^23: adding it rounds to an integer, in the low bits */
    x = x < -104 ? -104 : x;
    x = x > 89 ? 89 : x;
    float shifted = x * 1.44269504088896341f + magic;
    float k = shifted - magic;
    float r = x - k * 0.693145751953125f;               /* ln 2 in two parts, the first with few digits */
    r -= k * 1.42860682030941723e-6f;
    float e = 1.f / 5040;
    e = e * r + 1.f / 720;
    e = e * r + 1.f / 120;
    e = e * r + 1.f / 24;
    e = e * r + 1.f / 6;
    e = e * r + 0.5f;
    e = e * r * r + r + 1;
    uint32_t power = bits_of(shifted) - bits_of(magic);
    uint32_t half = (uint32_t)((int32_t)power >> 1);
    return e * float_of((half + 127) << 23) * float_of((power - half + 127) << 23);
}

/* Aligned to a vector; NULL if there is no memory. `count` is of bytes. */
static inline void *scratch(int64_t count) { return aligned_alloc(64, round_up(count > 0 ? count : 1, 64)); }

/* What is needed soon is asked for this far ahead of what is read: a processor sees no stream in rows of a few hundred bytes.
 * `fetch` is for reading, `fetch_to_write` for what will be written. Asking for what is not there does no harm. */
#define AHEAD 6144
#define LINE 64                     /* bytes that memory gives at once */
static inline void fetch(const void *from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += LINE) __builtin_prefetch((const char *)from + i, 0, 2);
}
static inline void fetch_to_write(const void *from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += LINE) __builtin_prefetch((const char *)from + i, 1, 2);
}

/* Where row (i, l) of a tensor lies: its axes after b and l are contiguous, those two have strides. */
#define ROWS(t, i, l) ((t) + (i) * t##_b + (l) * t##_l)

#endif
