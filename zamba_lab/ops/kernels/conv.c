#include "simd.h"
#define KERNEL "conv.inc"
#include "each_type.inc"
