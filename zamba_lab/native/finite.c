/* Whether numbers are finite: the largest of their bits without the sign tells, for in IEEE formats bits order magnitudes,
 * and infinity and NaN come after everything else. As fast as memory is read. */
#include "simd.h"

#define LARGEST(bits, without_sign) \
    do { \
        const bits *t = p; \
        bits most = 0; \
        _Pragma("omp simd reduction(max : most)") \
        for (int64_t i = first; i < last; i++) { \
            bits one = t[i] & without_sign; \
            most = one > most ? one : most; \
        } \
        found = most; \
    } while (0)

/* p: n numbers of `size` bytes, 2, 4 or 8. largest: one number, the largest magnitude's bits. */
int largest_bits(int64_t threads, int64_t n, int64_t size, const void *p, uint64_t *largest) {
    uint64_t whole = 0;
    int64_t piece = 1 << 18, pieces = (n + piece - 1) / piece;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(max : whole) if (threads > 1)
    for (int64_t k = 0; k < pieces; k++) {
        int64_t first = k * piece, last = least(first + piece, n);
        uint64_t found;
        if (size == 2) LARGEST(uint16_t, 0x7fff);
        else if (size == 4) LARGEST(uint32_t, 0x7fffffff);
        else LARGEST(uint64_t, 0x7fffffffffffffff);
        whole = found > whole ? found : whole;
    }
    *largest = whole;
    return 0;
}
