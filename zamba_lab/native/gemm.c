/* A linear layer of many rows in bfloat16, on a matrix unit: y = x W^T + bias + low up^T + add, summed in float and rounded
 * once; low = x down^T, rounded, too.
 *
 *     x: (m, in)   W: (out, in)   bias: (out,) or NULL   down: (rank, in)   up: (out, rank)   add: (m, out) or NULL
 *     low: (m, rank)   y: (m, out)                                                                     all without gaps
 *
 * low up^T is what an adapter adds, and rank may be 0. [W, up] is one matrix to the sums and is never made; x is put into tiles once, for
 * W and for down.
 *
 * The rows of W are the rows of the left factor, so W, the larger, is taken as it lies, and tiles of sums are y transposed. x, on the
 * right, is put into tiles of pairs once (`pack_x`). Everything is cut so that each part stays in a cache while it is used:
 *
 *     PIECE rows of x at a time
 *       a group of up to GROUP panels of 32 rows of W, to one thread; its sums stay in the second cache
 *         DEPTH of the columns: a part of x of 256 KB, in the second cache for all panels of the group
 *           a panel: 32 x DEPTH weights, copied to the first cache as tiles
 *             32 rows of x: four tiles of sums, a panel's weights and these rows meet in the first cache
 *
 * Meanwhile the next weights are fetched from memory, and the next part of x from wherever it is. A sum is made in the same order
 * whatever the number of threads and of rows.
 */
#include "tile.h"

#define DEPTH 256
#define STEPS (DEPTH / DEEP)
#define STEP_BYTES (2 * TILE_BYTES)
#define PART_BYTES (STEPS * STEP_BYTES)         /* of 32 rows of W or x and DEPTH columns */
#define PIECE 512
#define GROUP 8
#define SUMS_BYTES (4 * TILE_BYTES)             /* of 32 by 32 */
#define OWN_BYTES (PART_BYTES + (GROUP * PIECE / 32 + 1) * SUMS_BYTES)      /* a thread's: a panel, sums of a group, one more */

/* A product to be added: x (m, in), w (out, in); in may be 0. Their columns are cut into DEPTH each, and the last into what is left. */
typedef struct {
    const bf16 *x, *w;
    int64_t in;
} product;

typedef struct {
    int64_t m, out, depths;     /* of both products */
    product one, two;
    const bf16 *bias, *add;
    bf16 *y;
    char *packed;               /* PIECE rows of x: for each DEPTH columns, for each 32 rows, STEPS times two tiles */
} job;

static inline int64_t depths_of(int64_t in) { return (in + DEPTH - 1) / DEPTH; }

/* The columns number `depth` of a job. */
typedef struct {
    const product *of;
    int64_t from, count;
} columns;

static inline columns at_depth(const job *j, int64_t depth) {
    int64_t first = depths_of(j->one.in);
    const product *of = depth < first ? &j->one : &j->two;
    int64_t from = (depth < first ? depth : depth - first) * DEPTH;
    return (columns){of, from, least(DEPTH, of->in - from)};
}

/* Whether there is a matrix unit for this process: 1; 0 if not, then everything works, slowly; -1 if it was refused, then nothing does. */
int matrix_unit(void) { return ask_for_tiles(); }

/* Bytes of scratch memory for this many threads and columns. */
int64_t gemm_scratch(int64_t threads, int64_t in, int64_t rank) {
    return (depths_of(in) + depths_of(rank)) * (PIECE / 32) * PART_BYTES + threads * OWN_BYTES;
}

/* A tile's row: `count` numbers, or DEEP if there are more, and zeros; none if count is not positive. */
static inline void put_row(void *to, const bf16 *from, int64_t count) {
    if (count >= DEEP) {
        memcpy(to, from, 64);
        return;
    }
    memset(to, 0, 64);
    if (count > 0) memcpy(to, from, sizeof(bf16) * count);
}

/* 32 rows of x from `first` on and DEEP columns, the ones number `step` of c, become two tiles of pairs. */
static void pack_x(const job *j, char *to, int64_t first, columns c, int64_t step) {
    _Alignas(64) uint32_t rows[FLOATS];
    const bf16 *x = c.of->x + first * c.of->in + c.from + step * DEEP;
    for (int half = 0; half < 2; half++, to += TILE_BYTES) {
        for (int i = 0; i < SIDE; i++, x += c.of->in, first++)
            put_row(rows + i * SIDE, x, first < j->m ? c.count - step * DEEP : 0);
        transpose((uint32_t *)to, rows);
    }
}

/* The columns c of a panel become tiles, two a step. */
static void pack_w(const job *j, char *to, int64_t panel, columns c) {
    const bf16 *w = c.of->w + panel * 32 * c.of->in + c.from;
    for (int i = 0; i < 32; i++, w += c.of->in)
        for (int64_t s = 0; s * DEEP < c.count; s++)
            put_row(to + s * STEP_BYTES + i / SIDE * TILE_BYTES + i % SIDE * 64, w + s * DEEP,
                    panel * 32 + i < j->out ? c.count - s * DEEP : 0);
}

/* 32 by 32 sums, a column of y in each row, become 32 rows of y from `row` on, 32 columns from `column` on. */
static void finish(const job *j, float *sums, int64_t row, int64_t column) {
    int64_t count = least(32, j->out - column);
    _Alignas(64) uint32_t pairs[FLOATS], rows[FLOATS];
    for (int half = 0; half < 2; half++, row += SIDE, sums += FLOATS) {
#define SUMS(c) (sums + (c) / SIDE * 2 * FLOATS + (c) % SIDE * SIDE)
        if (j->bias)
            for (int64_t c = 0; c < count; c++)
                for (int i = 0; i < SIDE; i++) SUMS(c)[i] += from_bf16(j->bias[column + c]);
        if (j->add) {
            for (int i = 0; i < SIDE; i++)
                put_row(rows + i * SIDE, j->add + (row + i) * j->out + column, row + i < j->m ? count : 0);
            transpose(pairs, rows);
            for (int k = 0; k < SIDE; k++)
                for (int i = 0; i < SIDE; i++) {
                    SUMS(2 * k)[i] += float_of(pairs[k * SIDE + i] << 16);
                    SUMS(2 * k + 1)[i] += float_of(pairs[k * SIDE + i] & 0xffff0000);
                }
        }
        for (int k = 0; k < SIDE; k++) pair(pairs + k * SIDE, SUMS(2 * k), SUMS(2 * k + 1));
#undef SUMS
        transpose(rows, pairs);
        for (int i = 0; i < SIDE && row + i < j->m; i++) {
            bf16 *to = j->y + (row + i) * j->out + column;
            if (count == 32) memcpy(to, rows + i * SIDE, 64);
            else memcpy(to, rows + i * SIDE, sizeof(bf16) * count);
        }
    }
}

/* What is needed after the present panel: 32 rows of W, and of packed x this panel's share. With each step some is asked for. */
typedef struct {
    const bf16 *w;
    const char *x;
    int64_t in, lines_of_w;             /* with each step */
} coming;

#define SHARE (STEP_BYTES / GROUP)      /* bytes of x with each step: a full group asks for all */

static inline __attribute__((always_inline)) void ask(const coming *next, int64_t step) {
    for (int64_t line = step * next->lines_of_w; line < (step + 1) * next->lines_of_w; line++)
        fetch(next->w + line / STEPS * next->in + line % STEPS * DEEP, 1);
    fetch(next->x + step * SHARE, SHARE);
}

/* Some of the rows of y that come next: the line where 32 columns of them end. Where they begin the panel before has been. */
static inline void ask_for_rows(const job *j, int64_t row, int64_t column) {
    for (int i = 0; i < 32 / STEPS; i++) fetch_to_write((const char *)(j->y + (row + i) * j->out + column + 32) - 1, 1);
}

/* A panel's weights times all rows of the piece, for the DEPTH columns number `depth`. panel: packed; sums: SUMS_BYTES for each 32 rows;
 * last: as much, for sums that are done. */
static void multiply(const job *j, const char *panel, float *sums, float *last, int64_t first_row, int64_t blocks, int64_t depth,
                     int64_t column, const coming *next) {
    int64_t steps = (at_depth(j, depth).count + DEEP - 1) / DEEP, done = depth + 1 == j->depths;
    const char *x = j->packed + depth * blocks * PART_BYTES;
    for (int64_t b = 0; b < blocks; b++, x += PART_BYTES, sums += SUMS_BYTES / 4) {
        float *to = done ? last : sums;
        if (depth) {
            ON_SQUARE(tile_load, sums);
        } else {
            ZERO_SQUARE;
        }
        for (int64_t s = 0; s < steps; s++) {
            const char *left = panel + s * STEP_BYTES, *right = x + s * STEP_BYTES;
#pragma GCC unroll 32
            for (int i = 0; i < STEP_BYTES; i += LINE) __builtin_prefetch(right + STEP_BYTES + i, 0, 3);
            ask(next, b * steps + s);
            if (done && b + 1 < blocks) ask_for_rows(j, first_row + (b + 1) * 32 + s * (32 / STEPS), column);
            ADD_SQUARE(left, left + TILE_BYTES, right, right + TILE_BYTES);
        }
        ON_SQUARE(tile_store, to);
        if (done) finish(j, to, first_row + b * 32, column);
    }
}

/* Panels `from` to `to`, for `blocks` times 32 rows of x from `first_row` on. */
static void multiply_group(const job *j, char *own, int64_t first_row, int64_t blocks, int64_t from, int64_t to) {
    float *last = (float *)(own + PART_BYTES), *sums = last + SUMS_BYTES / 4;
    int64_t part = blocks * PART_BYTES, steps = blocks * STEPS;
    for (int64_t depth = 0; depth < j->depths; depth++)
        for (int64_t p = from; p < to; p++) {
            columns after = at_depth(j, (p + 1 < to ? depth : depth + 1) % j->depths);
            int64_t panel = p + 1 < to ? p + 1 : from;
            coming next = {after.of->w + panel * 32 * after.of->in + after.from,
                           j->packed + (depth + 1) % j->depths * part + (p - from) * steps * SHARE,
                           after.of->in, (32 * STEPS + steps - 1) / steps};
            pack_w(j, own, p, at_depth(j, depth));
            settle();
            multiply(j, own, sums + (p - from) * blocks * (SUMS_BYTES / 4), last, first_row, blocks, depth, 32 * p, &next);
        }
}

/* The next panels for a thread, from the result up to *to: a whole group, or, where fewer are left, a thread's share of those, so that
 * all threads end together. None if both are the same. */
static int64_t take(int64_t *taken, int64_t panels, int64_t threads, int64_t *to) {
    int64_t from;
#pragma omp critical(gemm_take)
    {
        from = *taken;
        int64_t left = panels - from, share = (left + threads - 1) / threads;
        *taken = *to = from + least(left, share > GROUP ? GROUP : share < 2 ? 2 : share);
    }
    return from;
}

/* Of rows `first` on, the columns from one depth to another become tiles. This and `multiply_all` are parts of a parallel region. */
static void pack_all(const job *j, int64_t first, int64_t blocks, int64_t from, int64_t to) {
    int64_t each = blocks * STEPS;
#pragma omp for schedule(static)
    for (int64_t t = from * each; t < to * each; t++)
        pack_x(j, j->packed + t * STEP_BYTES, first + t / STEPS % blocks * 32, at_depth(j, t / each), t % STEPS);
}

static void multiply_all(const job *j, char *own, int64_t first, int64_t blocks, int64_t threads, int64_t *taken) {
    int64_t panels = (j->out + 31) / 32;
    for (int64_t from, to; from = take(taken, panels, threads, &to), from < to;) multiply_group(j, own, first, blocks, from, to);
#pragma omp barrier
#pragma omp single
    *taken = 0;
}

/* scratch: gemm_scratch bytes, from a whole number of lines on. */
int gemm_bf16(int64_t threads, int64_t m, int64_t in, int64_t rank, int64_t out, const bf16 *x, const bf16 *w, const bf16 *down,
              const bf16 *up, const bf16 *bias, const bf16 *add, char *scratch, bf16 *low, bf16 *y) {
    int64_t taken = 0, started = 0, depths = depths_of(in);
    char *packed = scratch + threads * OWN_BYTES;
    job lower = {m, rank, depths, {x, down, in}, {NULL, NULL, 0}, NULL, NULL, low, packed};
    job all = {m, out, depths + depths_of(rank), {x, w, in}, {low, up, rank}, bias, add, y, packed};
#pragma omp parallel num_threads(threads)
    {
        int64_t mine;
#pragma omp atomic capture
        mine = started++;
        char *own = scratch + mine * OWN_BYTES;
        tiles_begin();
        for (int64_t first = 0; first < m; first += PIECE) {
            int64_t blocks = (least(PIECE, m - first) + 31) / 32;
            pack_all(&all, first, blocks, 0, depths);
            if (rank) {
                multiply_all(&lower, own, first, blocks, threads, &taken);
                pack_all(&all, first, blocks, depths, all.depths);
            }
            multiply_all(&all, own, first, blocks, threads, &taken);
        }
        tiles_end();
    }
    return 0;
}
