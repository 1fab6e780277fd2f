#include "exp.h"
#define KERNEL "conv.inc"
#include "each_type.inc"
