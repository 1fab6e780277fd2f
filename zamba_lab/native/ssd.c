#include "simd.h"
#define CHUNK 32         /* tokens that are multiplied as matrices; ssd.py says the same */
#define KERNEL "ssd.inc"
#include "each_type.inc"

/* build.py expects this number: whoever changes a function's arguments changes both. */
int zamba_kernels_abi(void) { return 6; }
