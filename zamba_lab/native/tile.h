/* Tiles, the registers of a matrix unit: 16 rows of 64 bytes, that is of 32 bfloat16 numbers or 16 floats. Intel's AMX where the
 * compiler knows it; elsewhere, or where PLAIN_TILES asks for it, the same in plain C, which is slow and serves to test the kernels
 * that are made of tiles.
 *
 * A thread calls tiles_begin() before it uses them and tiles_end() after that. Tiles are named by literal numbers, 0 to 7. */
#ifndef ZAMBA_TILE_H
#define ZAMBA_TILE_H

#include "simd.h"

#define SIDE 16                         /* rows of a tile, and floats in one */
#define DEEP 32                         /* bfloat16 numbers in a row */
#define FLOATS (SIDE * SIDE)            /* in a tile, and pairs of bfloat16 numbers */
#define TILE_BYTES 1024

#if !defined(PLAIN_TILES) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

/* Linux gives a process tiles when asked. Returns 1 if it did, -1 if not: then an instruction on tiles ends the process. */
static inline int ask_for_tiles(void) {
    const long ask_for_state = 0x1023, tile_data = 18;          /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, ask_for_state, tile_data) ? -1 : 1;
}

static inline void tiles_begin(void) {
    struct {
        uint8_t palette, start, none[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } all = {.palette = 1};
    for (int t = 0; t < 8; t++) all.row_bytes[t] = 64, all.rows[t] = SIDE;
    _tile_loadconfig(&all);
}

#define tiles_end() _tile_release()
#define tile_zero(t) _tile_zero(t)
/* Compilers do not all know that this reads memory: what was written for it is settled first (`settle`). */
#define tile_load(t, from) _tile_loadd(t, from, 64)
#define tile_store(t, to) _tile_stored(t, to, 64)
/* sums (i, j) += left (i, :) . right (:, j), where row r of `right` holds the pairs 2r, 2r + 1 of all columns. */
#define tile_add(sums, left, right) _tile_dpbf16ps(sums, left, right)
#define settle() __asm__ volatile("" ::: "memory")

static inline __m512i paired(__m512 low, __m512 high) {
    const __m512i turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                           19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(turns, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* Pairs of bfloat16: low[i] in the lower half of to[i], high[i] in the upper one. */
static inline void pair(uint32_t *to, const float *low, const float *high) {
    _mm512_storeu_si512(to, paired(_mm512_loadu_ps(low), _mm512_loadu_ps(high)));
}

/* `pair`, and the pairs of what is lost by it. */
static inline void split_pair(uint32_t *to, uint32_t *lost, const float *low, const float *high) {
    __m512 l = _mm512_loadu_ps(low), h = _mm512_loadu_ps(high);
    __m512i both = paired(l, h);
    _mm512_storeu_si512(to, both);
    _mm512_storeu_si512(lost, paired(_mm512_sub_ps(l, (__m512)_mm512_slli_epi32(both, 16)),
                                     _mm512_sub_ps(h, (__m512)_mm512_and_si512(both, _mm512_set1_epi32(0xffff0000)))));
}

/* A row of bfloat16 as floats. Whole registers throughout: what is stored in halves is slow to load whole. */
static inline void widen_row(float *to, const bf16 *from) {
    __m512i row = _mm512_loadu_si512(from);
    _mm512_storeu_si512(to, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(row)), 16));
    _mm512_storeu_si512(to + SIDE, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(row, 1)), 16));
}

/* Two rows of bfloat16 as pairs: SIDE of them in a row of a tile, the others in that row of the next tile. */
static inline void pair_rows(uint32_t *to, const bf16 *low, const bf16 *high) {
    const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4,
                                           35, 3, 34, 2, 33, 1, 32, 0);
    __m512i l = _mm512_loadu_si512(low), h = _mm512_loadu_si512(high);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(l, first, h));
    _mm512_storeu_si512(to + FLOATS, _mm512_permutex2var_epi16(l, _mm512_add_epi16(first, _mm512_set1_epi16(SIDE)), h));
}

/* DEEP floats as a row of bfloat16. */
static inline void round_row(bf16 *to, const float *from) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + SIDE), _mm512_loadu_ps(from)));
}

/* `round_row`, and a row of what is lost by it. */
static inline void split_row(uint32_t *to, uint32_t *lost, const float *from) {
    __m512 first = _mm512_loadu_ps(from), second = _mm512_loadu_ps(from + SIDE);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second, first);
    _mm512_storeu_si512(to, both);
    __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both)), high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1));
    _mm512_storeu_si512(lost, (__m512i)_mm512_cvtne2ps_pbh(_mm512_sub_ps(second, (__m512)_mm512_slli_epi32(high, 16)),
                                                           _mm512_sub_ps(first, (__m512)_mm512_slli_epi32(low, 16))));
}

/* to[j][i] = from[i][j], SIDE by SIDE, by halves of quarters of rows. */
static inline void transpose(uint32_t *to, const uint32_t *from) {
    __m512i r[SIDE], t[SIDE];
#define EACH(start, step) _Pragma("GCC unroll 16") for (int i = start; i < SIDE; i += step)
    EACH(0, 1) r[i] = _mm512_loadu_si512(from + i * SIDE);
    EACH(0, 2) t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    EACH(0, 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]), r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]), r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    EACH(12, 1) {                       /* i - 12: 0 to 3 */
        int k = i - 12;
        t[k] = _mm512_shuffle_i32x4(r[k], r[k + 4], 0x88), t[k + 4] = _mm512_shuffle_i32x4(r[k], r[k + 4], 0xdd);
        t[k + 8] = _mm512_shuffle_i32x4(r[k + 8], r[i], 0x88), t[i] = _mm512_shuffle_i32x4(r[k + 8], r[i], 0xdd);
    }
    EACH(12, 1) {
        int k = i - 12;
        r[k] = _mm512_shuffle_i32x4(t[k], t[k + 8], 0x88), r[k + 8] = _mm512_shuffle_i32x4(t[k], t[k + 8], 0xdd);
        r[k + 4] = _mm512_shuffle_i32x4(t[k + 4], t[i], 0x88), r[i] = _mm512_shuffle_i32x4(t[k + 4], t[i], 0xdd);
    }
    EACH(0, 1) _mm512_storeu_si512(to + i * SIDE, r[i]);
#undef EACH
}

#else
static inline int ask_for_tiles(void) { return 0; }

static __thread uint32_t tiles[8][FLOATS];
#define tiles_begin()
#define tiles_end()
#define tile_zero(t) memset(tiles[t], 0, TILE_BYTES)
#define tile_load(t, from) memcpy(tiles[t], from, TILE_BYTES)
#define tile_store(t, to) memcpy(to, tiles[t], TILE_BYTES)
#define tile_add(sums, left, right) add_products(tiles[sums], tiles[left], tiles[right])
#define settle()

static inline void add_products(uint32_t *sums, const uint32_t *left, const uint32_t *right) {
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            float sum = float_of(sums[i * SIDE + j]);
            for (int k = 0; k < SIDE; k++) {
                uint32_t l = left[i * SIDE + k], r = right[k * SIDE + j];
                sum += from_bf16((bf16)l) * from_bf16((bf16)r) + from_bf16(l >> 16) * from_bf16(r >> 16);
            }
            sums[i * SIDE + j] = bits_of(sum);
        }
}

static inline void pair(uint32_t *to, const float *low, const float *high) {
    for (int i = 0; i < SIDE; i++) to[i] = to_bf16(low[i]) | (uint32_t)to_bf16(high[i]) << 16;
}

static inline void split_pair(uint32_t *to, uint32_t *lost, const float *low, const float *high) {
    float rest[2][SIDE];
    pair(to, low, high);
    for (int i = 0; i < SIDE; i++) rest[0][i] = low[i] - from_bf16((bf16)to[i]), rest[1][i] = high[i] - from_bf16(to[i] >> 16);
    pair(lost, rest[0], rest[1]);
}

static inline void widen_row(float *to, const bf16 *from) {
    for (int i = 0; i < DEEP; i++) to[i] = from_bf16(from[i]);
}

static inline void pair_rows(uint32_t *to, const bf16 *low, const bf16 *high) {
    for (int i = 0; i < DEEP; i++) to[i / SIDE * FLOATS + i % SIDE] = low[i] | (uint32_t)high[i] << 16;
}

static inline void round_row(bf16 *to, const float *from) {
    for (int i = 0; i < DEEP; i++) to[i] = to_bf16(from[i]);
}

static inline void split_row(uint32_t *to, uint32_t *lost, const float *from) {
    bf16 *t = (bf16 *)to, *l = (bf16 *)lost;
    for (int i = 0; i < DEEP; i++) t[i] = to_bf16(from[i]), l[i] = to_bf16(from[i] - from_bf16(t[i]));
}

static inline void transpose(uint32_t *to, const uint32_t *from) {
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) to[j * SIDE + i] = from[i * SIDE + j];
}
#endif

/* A square of sums: tiles 0 and 1, and 2 and 3 below them. In memory one follows the other. */
#define ZERO_SQUARE \
    tile_zero(0); \
    tile_zero(1); \
    tile_zero(2); \
    tile_zero(3)
#define ON_SQUARE(do, at) \
    do(0, at); \
    do(1, (at) + FLOATS); \
    do(2, (at) + 2 * FLOATS); \
    do(3, (at) + 3 * FLOATS)
/* += the upper and lower left factor times the two right ones beside each other. */
#define ADD_SQUARE(upper, lower, right0, right1) \
    tile_load(4, upper); \
    tile_load(6, right0); \
    tile_add(0, 4, 6); \
    tile_load(7, right1); \
    tile_add(1, 4, 7); \
    tile_load(5, lower); \
    tile_add(2, 5, 6); \
    tile_add(3, 5, 7)
/* More of it by the left factors, or the right ones, that are still there. */
#define ADD_RIGHT(right0, right1) \
    tile_load(6, right0); \
    tile_add(0, 4, 6); \
    tile_load(7, right1); \
    tile_add(1, 4, 7); \
    tile_add(2, 5, 6); \
    tile_add(3, 5, 7)
#define ADD_LEFT(upper, lower) \
    tile_load(4, upper); \
    tile_add(0, 4, 6); \
    tile_add(1, 4, 7); \
    tile_load(5, lower); \
    tile_add(2, 5, 6); \
    tile_add(3, 5, 7)

#endif
