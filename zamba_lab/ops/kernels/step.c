/* What decoding does to one token besides matrix products. */
#include "simd.h"

#define PARALLEL_ABOVE 65536        /* multiply-adds; below, waking a second thread costs more than it saves */
#define LOG1P(v) (sizeof(v) == 8 ? log1p(v) : log1pf(v))
#define ERF(v) (sizeof(v) == 8 ? erf(v) : erff(v))
#define KERNEL "step.inc"
#include "each_type.inc"
