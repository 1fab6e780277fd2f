#include "exp.h"
#define KERNEL "norm.inc"
#include "each_type.inc"
