/* What all kernels share: vectors as wide as the machine's, element types, and scratch memory.
 *
 * Vectors are the compiler's own extension (gcc and clang, x86 and ARM), so there is one source and no intrinsics but
 * where the text says so. L lanes of `real` fill one register. Kernels work on rows padded with zeros to whole
 * vectors, which packing makes from tensors of any width, stride and element type.
 */
#ifndef ZAMBA_SIMD_H
#define ZAMBA_SIMD_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE 16          /* rows of state held in registers: 16 of 32 */
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#define TILE 8           /* 8 of 16 */
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define TILE 16          /* 16 of 32 */
#else
#define VECTOR_BYTES 16
#define TILE 8
#endif

typedef uint16_t bf16;   /* the upper half of a float */

static inline float from_float(float v) { return v; }
static inline double from_double(double v) { return v; }
static inline float from_bf16(bf16 v) {
    uint32_t bits = (uint32_t)v << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static inline float to_float(float v) { return v; }
static inline double to_double(double v) { return v; }
/* To the nearest, ties to even, as torch rounds; NaN stays NaN. */
static inline bf16 to_bf16(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (bf16)rounded;
}

static inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Aligned to a vector; NULL if there is no memory. `count` is of bytes. */
static inline void *scratch(int64_t count) { return aligned_alloc(64, round_up(count > 0 ? count : 1, 64)); }

#define CONCAT_(a, b) a##b
#define CONCAT(a, b) CONCAT_(a, b)

#endif
