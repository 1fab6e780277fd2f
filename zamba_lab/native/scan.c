/* The Mamba-1 selective scan, and the exponential that it stands on. */
#include "exp.h"
#define SCAN_CHUNK 32    /* tokens between two states that are kept; scan.py says the same */
#define SCAN_TILE 4      /* rows of state run through a chunk at a time: their buffers fit the first cache */
#define KERNEL "scan.inc"
#include "each_type.inc"

/* For the tests: the exponential of n floats, any n. */
void zamba_exp_f32(int64_t n, const float *x, float *y) {
    const int64_t lanes = VECTOR_BYTES / sizeof(float);
    for (int64_t i = 0; i < n; i += lanes) {
        floats v = {0};
        memcpy(&v, x + i, sizeof(float) * least(lanes, n - i));
        v = exp_floats(v, 1);
        memcpy(y + i, &v, sizeof(float) * least(lanes, n - i));
    }
}
