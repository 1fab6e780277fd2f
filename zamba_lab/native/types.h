/* The dtype that a file is compiled for, chosen by TYPE_f32, TYPE_bf16 or TYPE_f64: tensors hold `stored`, arithmetic is in `real`.
 *
 * load and store convert a number, load_row and store_row a row of them; EXP is the exponential of one `real`, in loops the compiler
 * makes vectors of, EXP_LANES that of a vector (exp.h). EXPORT(name) is the name with the dtype's ending, as Python calls it.
 */
#ifndef ZAMBA_TYPES_H
#define ZAMBA_TYPES_H

#include "exp.h"

#if defined(TYPE_f64)
typedef double real;
typedef double stored;
#define EXPORT(name) name##_f64
#define EXP exp
#define EXP_LANES exp_doubles
#define SQRT sqrt
static inline real load(stored v) { return v; }
static inline stored store(real v) { return v; }
#else
typedef float real;
#define EXP exp_float
#define EXP_LANES exp_floats
#define SQRT sqrtf
#if defined(TYPE_f32)
typedef float stored;
#define EXPORT(name) name##_f32
static inline real load(stored v) { return v; }
static inline stored store(real v) { return v; }
#else
typedef bf16 stored;
#define EXPORT(name) name##_bf16
static inline real load(stored v) { return from_bf16(v); }
static inline stored store(real v) { return to_bf16(v); }
#endif
#endif

typedef real vec __attribute__((vector_size(VECTOR_BYTES), may_alias)); /* a register of `real`, LANES of them */
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(real)))

/* n numbers. What is computed with is filled up with zeros to whole registers. */
static inline void load_row(real *to, const stored *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = load(from[i]);
    for (int64_t i = n; i % LANES; i++) to[i] = 0;
}

/* The processor's own instruction, where it has one, counts numbers below 2^-126 as zeros. */
static inline void store_row(stored *to, const real *from, int64_t n) {
    int64_t i = 0;
#if defined(TYPE_bf16) && defined(__AVX512BF16__) && defined(__AVX512F__)
    for (; i + 32 <= n; i += 32)
        _mm512_storeu_si512(to + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i)));
#endif
    for (; i < n; i++) to[i] = store(from[i]);
}

#endif
