#include "simd.h"
#define KERNEL "turn.inc"
#include "each_type.inc"
