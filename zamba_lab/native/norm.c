/* RMSNorm in equal groups, after a SiLU gate or without one, forward and backward, for one pair of types.
 *
 *     a = y silu(z)      u = a / sqrt(mean(a^2) + eps)      out = weight u
 *
 * A row is (b, l) flattened; y, z and the gradients may be columns of wider tensors, so each has the stride of its rows.
 */
#include "types.h"

#define WIDE 256                /* numbers at a time */
#define SOON 2                  /* rows: where they are far apart, no processor sees that they follow */

static inline real product_sum(const real *a, const real *b, int64_t n) {
    real parts[32] = {0};                    /* fixed lanes: the compiler may not reorder a sum, so the order says it */
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int k = 0; k < 32; k++) parts[k] += a[i + k] * b[i + k];
    for (int k = 0; i < n; i++, k++) parts[k] += a[i] * b[i];
    for (int width = 16; width; width /= 2)
        for (int k = 0; k < width; k++) parts[k] += parts[k + width];
    return parts[0];
}

/* a *= silu(z), n numbers. */
static void gate_row(real *a, const stored *z, int64_t n) {
    for (int64_t from = 0; from < n; from += WIDE) {
        _Alignas(64) real gate[WIDE];
        int64_t m = least(WIDE, n - from);
        load_row(gate, z + from, m);
        for (int64_t i = 0; i < m; i += LANES) {
            vec v = *(const vec *)(gate + i);
            *(vec *)(a + from + i) *= v / (1 + EXP_LANES(-v, 1));
        }
    }
}

/* weight times a row u = by a. */
static void weigh_row(stored *to, const real *a, real by, const stored *weight, int64_t early, int64_t n) {
    for (int64_t from = 0; from < n; from += WIDE, a += WIDE, weight += WIDE, to += WIDE) {
        _Alignas(64) real u[WIDE];
        int64_t m = least(WIDE, n - from);
        for (int64_t i = 0; i < m; i++) u[i] = a[i] * by;
        if (early) {
            store_row(to, u, m);
            load_row(u, to, m);
        }
        for (int64_t i = 0; i < m; i++) u[i] *= load(weight[i]);
        store_row(to, u, m);
    }
}

/* y: (rows, e), rows y_r apart; z like it, or NULL for no gate; weight: (e,). Writes out (rows, e).
 * `early`: round u to stored before the weight, as the released code does in its plain norms. */
int EXPORT(norm_forward)(int64_t threads, int64_t rows, int64_t e, int64_t groups, double eps, int64_t early, const stored *y,
                     int64_t y_r, const stored *z, int64_t z_r, const stored *weight, stored *out) {
    int64_t width = e / groups;
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        real *a = scratch(sizeof(real) * round_up(width, LANES));
        if (!a) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t task = 0; task < rows * groups; task++) {
            if (!a) continue;
            int64_t row = task / groups, from = task % groups * width;
            const stored *zr = z ? z + row * z_r + from : NULL;
            if (zr) fetch(zr + SOON * z_r, sizeof(stored) * width);
            load_row(a, y + row * y_r + from, width);
            if (zr) gate_row(a, zr, width);
            real by = 1 / SQRT(product_sum(a, a, width) / width + (real)eps);
            weigh_row(out + row * e + from, a, by, weight + from, early, width);
        }
        free(a);
    }
    return failed;
}

/* Inputs as norm_forward; dout: (rows, e), dout_r apart. Writes dy and dz (rows, e) with strides, and dweight (slots, e):
 * the rows are cut into that many runs, whose sums are left to the caller. Where the rounding was early it counts as
 * none. */
int EXPORT(norm_backward)(int64_t threads, int64_t slots, int64_t rows, int64_t e, int64_t groups, double eps, const stored *y,
                      int64_t y_r, const stored *z, int64_t z_r, const stored *weight, const stored *dout, int64_t dout_r, stored *dy,
                      int64_t dy_r, stored *dz, int64_t dz_r, real *dweight) {
    int64_t width = e / groups;
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        real *a = scratch(sizeof(real) * width * 4), *du = a + width, *gate = du + width, *slope = gate + width;
        if (!a) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t slot = 0; slot < slots; slot++) {
            if (!a) continue;
            memset(dweight + slot * e, 0, sizeof(real) * e);
            for (int64_t task = slot * rows / slots * groups; task < (slot + 1) * rows / slots * groups; task++) {
                int64_t row = task / groups, from = task % groups * width;
                const stored *yr = y + row * y_r + from, *zr = z ? z + row * z_r + from : NULL;
                const stored *g = dout + row * dout_r + from;
                real *sums = dweight + slot * e + from;
                if (zr) {
                    fetch(zr + SOON * z_r, sizeof(stored) * width);
                    fetch_to_write(dz + (row + SOON) * dz_r + from, sizeof(stored) * width);
                }
                for (int64_t i = 0; i < width; i++) a[i] = load(yr[i]);
                if (zr)
                    for (int64_t i = 0; i < width; i++) {
                        real v = load(zr[i]), s = 1 / (1 + EXP(-v));
                        gate[i] = v * s;
                        slope[i] = a[i] * s * (1 + v * (1 - s));
                        a[i] *= gate[i];
                    }
                real by = 1 / SQRT(product_sum(a, a, width) / width + (real)eps);
                for (int64_t i = 0; i < width; i++) {
                    a[i] *= by;
                    sums[i] += load(g[i]) * a[i];
                    du[i] = load(g[i]) * load(weight[from + i]);
                }
                real mean = product_sum(du, a, width) / width;
                stored *dyr = dy + row * dy_r + from;
                for (int64_t i = 0; i < width; i++) a[i] = by * (du[i] - a[i] * mean);                 /* dL/da */
                if (zr) {
                    stored *dzr = dz + row * dz_r + from;
                    for (int64_t i = 0; i < width; i++) dzr[i] = store(a[i] * slope[i]);
                    for (int64_t i = 0; i < width; i++) a[i] *= gate[i];
                }
                for (int64_t i = 0; i < width; i++) dyr[i] = store(a[i]);
            }
        }
        free(a);
    }
    return failed;
}
