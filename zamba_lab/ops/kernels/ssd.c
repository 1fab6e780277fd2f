#include "simd.h"
#define CHUNK 64         /* tokens that are packed and run through a tile of state at a time */
#define KERNEL "ssd.inc"
#include "each_type.inc"

/* build.py expects this number: whoever changes a function's arguments changes both. */
int zamba_kernels_abi(void) { return 2; }
