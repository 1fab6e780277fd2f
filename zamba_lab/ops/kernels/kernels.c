/* The native kernels, one file an operation, each compiled once for every pair of types. */
#include "simd.h"

#define CHUNK 64         /* tokens that are packed and run through a tile of state at a time */

#define real float
#define io float
#define FROM_IO from_float
#define TO_IO to_float
#define EXP expf
#define FN(name) CONCAT(name, _f32)
#include "ssd.inc"
#undef io
#undef FROM_IO
#undef TO_IO
#undef FN

#define io bf16
#define FROM_IO from_bf16
#define TO_IO to_bf16
#define FN(name) CONCAT(name, _bf16)
#include "ssd.inc"
#undef real
#undef io
#undef FROM_IO
#undef TO_IO
#undef EXP
#undef FN

#define real double
#define io double
#define FROM_IO from_double
#define TO_IO to_double
#define EXP exp
#define FN(name) CONCAT(name, _f64)
#include "ssd.inc"

/* build.py expects this number: whoever changes a function's arguments changes both. */
int zamba_kernels_abi(void) { return 1; }
