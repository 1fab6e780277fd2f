/* What the library has once, whatever the dtype. */
#include "exp.h"

/* build.py expects this number: whoever changes a function's arguments changes both. */
int zamba_native_abi(void) { return 7; }

/* A program is a list of calls, made in order: functions that take their arguments as slots, and for each where its slots begin. Stops
 * at the first that finds no memory. See program.py. */
int run_program(int64_t threads, int64_t calls, int (*const *functions)(const slot *), const int64_t *starts, const slot *slots) {
    (void)threads;              /* each call has its own number among its slots */
    for (int64_t k = 0; k < calls; k++)
        if (functions[k](slots + starts[k])) return 1;
    return 0;
}

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
