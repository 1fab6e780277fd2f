/* What decoding does to one token besides matrix products. */
#include "simd.h"

#define PARALLEL_ABOVE 65536        /* multiply-adds; below, waking a second thread costs more than it saves */
#define LOG1P(v) (sizeof(v) == 8 ? log1p(v) : log1pf(v))

#define KERNEL "step.inc"
#include "each_type.inc"

/* A tape is a list of calls that were made once and are made again: functions that take their arguments as slots, and for
 * each where its slots begin. Stops at the first that finds no memory. */
typedef int (*taped)(const slot *);

int run_tape(int64_t threads, int64_t calls, const taped *functions, const int64_t *starts, const slot *slots) {
    (void)threads;              /* each call has its own number, as it had when it was made the first time */
    for (int64_t k = 0; k < calls; k++)
        if (functions[k](slots + starts[k])) return 1;
    return 0;
}
