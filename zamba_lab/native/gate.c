#include "simd.h"

/* The normal distribution function. exp(-v^2/2) comes back in `density`.
 * Phi(-a) = t q(t) exp(-a^2 / 2) with t = 1 / (1 + 0.265 a), as in Abramowitz & Stegun 26.2.17, but q of degree 8 and fitted to the
 * least relative error (1.2e-8). No branches, so that the compiler makes vectors of it. */
static inline float phi_float(float v, float *density) {
    float a = v < 0 ? -v : v, e = exp_float(-0.5f * v * v), t = 1 / (1 + 0.265f * a);
    float q = 0.030820807f;
    q = q * t - 0.14422843f;
    q = q * t + 0.21781461f;
    q = q * t - 0.11636222f;
    q = q * t + 0.13795285f;
    q = q * t + 0.060313206f;
    q = q * t + 0.10270096f;
    q = q * t + 0.10524666f;
    q = q * t + 0.10574156f;
    float below = q * t * e;
    *density = e;
    return v > 0 ? 1 - below : below;
}

static inline double phi_double(double v, double *density) {
    *density = exp(-0.5 * v * v);
    return 0.5 * erfc(v * -0.70710678118654752440);
}

#define PHI CONCAT(phi_, real)
#define KERNEL "gate.inc"
#include "each_type.inc"
