/* Causal attention of many queries in bfloat16 on a matrix unit: y = softmax(scale q k^T) v, of l queries at the last of s positions.
 *
 *     q: (b, h, l, p)   k, v: (b, h / group, s, p)   y: (b, l, h, p) without gaps, the others with strides; p a multiple of 32
 *
 * The softmax is made as keys come (Milakov & Gimelshein 2018; Dao et al. 2022, "FlashAttention"): with each KEYS of them sums shrink by
 * what the largest score has grown. Scores and sums are float, what the values are multiplied by is rounded to bfloat16, as in torch.
 *
 * Everything is transposed, so that a query is a lane and nothing is summed across lanes: scores k q^T have a row for each key, which
 * pairs of rows turn into the right factor of v^T, and sums a row for each channel. A thread takes up to QUERIES of a head, and KEYS at
 * a time become tiles for all of them; 32 queries and 32 keys, or channels, meet in four tiles. A query's sums are made in the same
 * order whatever the number of threads and of queries.
 */
#include "exp.h"
#include "tile.h"

#define QUERIES 512
#define KEYS 128

typedef struct {
    int64_t h, group, l, s, p;
    float scale;
    const bf16 *q, *k, *v;
    int64_t q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l;
    bf16 *y;
    int64_t many, blocks, tasks;        /* queries to a task, tasks to a head, tasks */
} job;

/* A thread's own. `sums` has p rows of 32 queries for each 32, in squares of tiles. */
typedef struct {
    float scores[KEYS / 32][4 * FLOATS];
    uint32_t probs[KEYS / 32][2 * FLOATS];
    float most[QUERIES], sum[QUERIES], shrink[32];              /* of each query: the largest score, all its exponentials */
    float *sums;
    char *q, *k, *v;
} room;

/* Bytes of scratch memory for this many threads. */
int64_t attend_scratch(int64_t threads, int64_t p) {
    return threads * (round_up(sizeof(room), 64) + p * (QUERIES * 4 + QUERIES * 2 + 2 * KEYS * 2));
}

static room *room_at(char *scratch, int64_t index, int64_t p) {
    room *own = (room *)(scratch + index * attend_scratch(1, p));
    char *after = (char *)own + round_up(sizeof(room), 64);
    own->sums = (float *)after, own->q = after + QUERIES * p * 4, own->k = own->q + QUERIES * p * 2, own->v = own->k + KEYS * p * 2;
    return own;
}

/* Row i of `count` that there are, `step` apart; zeros after them. */
static inline const bf16 *row_of(const bf16 *from, int64_t i, int64_t count, int64_t step) {
    static const bf16 nothing[DEEP];
    return i < count ? from + i * step : nothing;
}

/* 32 queries: right factors, two tiles for each 32 channels. */
static void pack_q(char *to, const bf16 *q, int64_t q_l, int64_t count, int64_t p) {
    _Alignas(64) uint32_t rows[FLOATS];
    for (int64_t c = 0; c < p; c += DEEP)
        for (int half = 0; half < 2; half++, to += TILE_BYTES) {
            for (int i = 0; i < SIDE; i++) memcpy(rows + i * SIDE, row_of(q + c, half * SIDE + i, count, q_l), 64);
            transpose((uint32_t *)to, rows);
        }
}

/* 32 keys: left factors, two tiles for each 32 channels. */
static void pack_k(char *to, const bf16 *k, int64_t k_l, int64_t count, int64_t p) {
    for (int64_t c = 0; c < p; c += DEEP, to += 2 * TILE_BYTES)
        for (int i = 0; i < 32; i++) memcpy(to + i * 64, row_of(k + c, i, count, k_l), 64);
}

/* 32 values, transposed: left factors, two tiles for each 32 channels, KEYS / 32 pairs of tiles apart. */
static void pack_v(char *to, const bf16 *v, int64_t v_l, int64_t count, int64_t p) {
    _Alignas(64) uint32_t pairs[2 * FLOATS];
    for (int64_t c = 0; c < p; c += DEEP, to += KEYS / 32 * 2 * TILE_BYTES) {
        for (int i = 0; i < SIDE; i++)
            pair_rows(pairs + i * SIDE, row_of(v + c, 2 * i, count, v_l), row_of(v + c, 2 * i + 1, count, v_l));
        transpose((uint32_t *)to, pairs);
        transpose((uint32_t *)(to + TILE_BYTES), pairs + FLOATS);
    }
}

/* Scores of `squares` times 32 keys and 32 queries. */
static void score(room *o, const char *q, int64_t squares, int64_t p) {
    for (int64_t r = 0; r < squares; r++) {
        const char *k = o->k + r * p * 64;
        ZERO_SQUARE;
        for (int64_t c = 0; c < p; c += DEEP) {
            const char *left = k + c * 64, *right = q + c * 64;
            ADD_SQUARE(left, left + TILE_BYTES, right, right + TILE_BYTES);
        }
        ON_SQUARE(tile_store, o->scores[r]);
    }
}

/* Of a square, keys after a query. The first key is `later` positions after the first query. */
static void hide(float *scores, int64_t later) {
    for (int key = 0; key < 32; key++)
        for (int half = 0; half < 2; half++) {
            float *row = scores + key / SIDE * 2 * FLOATS + half * FLOATS + key % SIDE * SIDE;
#pragma omp simd
            for (int i = 0; i < SIDE; i++) row[i] = key + later > half * SIDE + i ? -INFINITY : row[i];
        }
}

/* Scores of 16 queries, one tile of each `tiles` pairs of them, become exponentials, less the largest so far, and factors of the values.
 * most, sum, shrink: those queries'. */
static void weigh(const float *scores, uint32_t *probs, float *most, float *sum, float *shrink, int64_t tiles, float scale) {
    enum { LANES = VECTOR_BYTES / sizeof(float), PARTS = SIDE / LANES };
    for (int part = 0; part < PARTS; part++) {
        floats before = ((floats *)most)[part], top[4] = {before, before, before, before};
        for (int64_t t = 0; t < tiles; t++)
#pragma GCC unroll 16
            for (int key = 0; key < SIDE; key++)
                top[key % 4] = larger(top[key % 4], ((const floats *)(scores + t * 2 * FLOATS + key * SIDE))[part]);
        floats all = larger(larger(top[0], top[1]), larger(top[2], top[3]));
        ((floats *)most)[part] = all;
        ((floats *)shrink)[part] = exp_floats((before - all) * scale, 1);
    }
    floats total[2][PARTS] = {0};
    for (int64_t t = 0; t < tiles; t++)
#pragma GCC unroll 8
        for (int key = 0; key < SIDE; key += 2) {
            _Alignas(64) float e[2][SIDE];
            for (int i = 0; i < 2; i++)
                for (int part = 0; part < PARTS; part++) {
                    floats score = ((const floats *)(scores + t * 2 * FLOATS + (key + i) * SIDE))[part];
                    floats one = exp_floats(score * scale - ((floats *)most)[part] * scale, 1);
                    total[i][part] += one;
                    ((floats *)e[i])[part] = one;
                }
            pair(probs + t / 2 * 2 * FLOATS + (t % 2 * 8 + key / 2) * SIDE, e[0], e[1]);
        }
    for (int part = 0; part < PARTS; part++)
        ((floats *)sum)[part] = ((floats *)sum)[part] * ((floats *)shrink)[part] + (total[0][part] + total[1][part]);
}

/* sums = shrink sums + v^T probs, of 32 queries. fresh: there were none before. */
static void add_values(room *o, float *sums, int64_t squares, int64_t p, int fresh) {
    int same = 1;
    for (int i = 0; i < 32; i++) same &= o->shrink[i] == 1;
    for (int64_t c = 0; c < p; c += 32, sums += 4 * FLOATS) {
        const char *v = o->v + c / 32 * (KEYS / 32) * 2 * TILE_BYTES;
        if (fresh) {
            ZERO_SQUARE;
        } else {
            if (!same)
                for (int row = 0; row < 4 * SIDE; row++) {
                    const float *by = o->shrink + row / SIDE % 2 * SIDE;
#pragma omp simd
                    for (int i = 0; i < SIDE; i++) sums[row * SIDE + i] *= by[i];
                }
            settle();
            ON_SQUARE(tile_load, sums);
        }
        for (int64_t r = 0; r < squares; r++, v += 2 * TILE_BYTES) {
            ADD_SQUARE(v, v + TILE_BYTES, o->probs[r], o->probs[r] + FLOATS);
        }
        ON_SQUARE(tile_store, sums);
    }
}

/* 32 queries' sums over their sum become rows of y, h p apart. */
static void finish(const job *j, const float *sums, const float *sum, int64_t count, bf16 *y) {
    _Alignas(64) uint32_t pairs[FLOATS], rows[FLOATS];
    _Alignas(64) float out[2][SIDE], by[32];
    for (int i = 0; i < 32; i++) by[i] = 1 / sum[i];
    for (int64_t c = 0; c < j->p; c += 32, sums += 4 * FLOATS)
        for (int half = 0; half < 2; half++) {
            for (int row = 0; row < 32; row += 2) {
                const float *from = sums + row / SIDE * 2 * FLOATS + half * FLOATS + row % SIDE * SIDE;
#pragma omp simd
                for (int i = 0; i < SIDE; i++) out[0][i] = from[i] * by[half * SIDE + i], out[1][i] = from[SIDE + i] * by[half * SIDE + i];
                pair(pairs + row / 2 * SIDE, out[0], out[1]);
            }
            transpose(rows, pairs);
            for (int i = 0; i < SIDE && half * SIDE + i < count; i++)
                memcpy(y + (half * SIDE + i) * j->h * j->p + c, rows + i * SIDE, 64);
        }
}

/* Queries `from` to `to` of a head: where its rows begin. */
typedef struct {
    const bf16 *q, *k, *v;
    bf16 *y;
    int64_t from, to;
} task;

/* The last queries, which have the most keys, come first. */
static task task_at(const job *j, int64_t index) {
    int64_t i = index / j->h % (j->tasks / j->blocks / j->h), head = index % j->h;
    int64_t from = (j->blocks - 1 - index / (j->tasks / j->blocks)) * j->many;
    return (task){j->q + i * j->q_b + head * j->q_h + from * j->q_l, j->k + i * j->k_b + head / j->group * j->k_h,
                  j->v + i * j->v_b + head / j->group * j->v_h, j->y + ((i * j->l + from) * j->h + head) * j->p, from,
                  least(j->l, from + j->many)};
}

static inline void ask(const bf16 *rows, int64_t step, int64_t count, int64_t p) {
    for (int64_t i = 0; i < count; i++) fetch(rows + i * step, sizeof(bf16) * p);
}

/* KEYS keys and values from k and v on, of `count` that there are, as many of them as `squares` say. */
static void pack_keys(const job *j, room *o, const bf16 *k, const bf16 *v, int64_t count, int64_t squares) {
    for (int64_t r = 0; r < squares; r++, count -= 32) {
        pack_k(o->k + r * j->p * 64, k + r * 32 * j->k_l, j->k_l, count, j->p);
        pack_v(o->v + r * 2 * TILE_BYTES, v + r * 32 * j->v_l, j->v_l, count, j->p);
    }
}

/* The keys that are packed and 32 queries, number `at` on of the task's. The first key is `later` positions after the first query. */
static void attend_some(room *o, int64_t at, int64_t later, int64_t squares, int64_t p, float scale, int fresh) {
    settle();
    score(o, o->q + at * p * 2, squares, p);
    for (int64_t r = 0; r < squares; r++)
        if (later + r * 32 + 31 > 0) hide(o->scores[r], later + r * 32);
    for (int half = 0; half < 2; half++)
        weigh(o->scores[0] + half * FLOATS, o->probs[0] + half * FLOATS, o->most + at + half * SIDE, o->sum + at + half * SIDE,
              o->shrink + half * SIDE, 2 * squares, scale);
    settle();
    add_values(o, o->sums + at * p, squares, p, fresh);
}

/* `next` is what probably comes after this: rows are far apart, no processor sees that they follow, so they are asked for meanwhile. */
static void attend(const job *j, room *o, const task *t, const task *next) {
    int64_t p = j->p, past = j->s - j->l, queries = t->to - t->from, keys = past + t->to;
    for (int64_t i = 0; i < round_up(queries, 32); i++) o->most[i] = -INFINITY, o->sum[i] = 0;
    for (int64_t first = 0; first < keys; first += KEYS) {
        const bf16 *k = t->k + first * j->k_l, *v = t->v + first * j->v_l;
        int64_t squares = (least(KEYS, keys - first) + 31) / 32, last = first + KEYS >= keys;
        int64_t later = first - past - t->from, start = later > 0 ? later / 32 * 32 : 0;        /* queries before `start` see none */
        int64_t share = (KEYS * 32 + queries - start - 1) / (queries - start);
        pack_keys(j, o, k, v, j->s - first, squares);
        k = last ? next->k : k + KEYS * j->k_l, v = last ? next->v : v + KEYS * j->v_l;
        if (last) ask(next->q, j->q_l, 32, p);
        for (int64_t at = start; at < queries; at += 32, k += share * j->k_l, v += share * j->v_l) {
            if (!first) {
                ask(t->q + (at + 32) * j->q_l, j->q_l, 32, p);
                pack_q(o->q + at * p * 2, t->q + at * j->q_l, j->q_l, queries - at, p);
            }
            ask(k, j->k_l, share, p);
            ask(v, j->v_l, share, p);
            attend_some(o, at, later - at, least(squares, (31 - later + at) / 32 + 1), p, j->scale, !first);
        }
    }
    for (int64_t i = 0; i < queries; i += 32)
        finish(j, o->sums + i * p, o->sum + i, queries - i, t->y + i * j->h * p);
}

/* scale > 0; scratch: attend_scratch bytes. A value that is not finite shows in up to 62 earlier queries, since 0 times infinity is no
 * number and squares of queries and keys need not lie in line (in torch's, in hundreds). */
int attend_bf16(int64_t threads, int64_t b, int64_t h, int64_t group, int64_t l, int64_t s, int64_t p, double scale, const bf16 *q,
                int64_t q_b, int64_t q_h, int64_t q_l, const bf16 *k, int64_t k_b, int64_t k_h, int64_t k_l, const bf16 *v, int64_t v_b,
                int64_t v_h, int64_t v_l, char *scratch, bf16 *y) {
    int64_t many = QUERIES, started = 0;
    while (many > 64 && b * h * ((l + many - 1) / many) < 2 * threads) many /= 2;
    int64_t blocks = (l + many - 1) / many;
    job all = {h, group, l, s, p, scale, q, k, v, q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l, y, many, blocks, b * h * blocks};
#pragma omp parallel num_threads(threads)
    {
        int64_t mine;
#pragma omp atomic capture
        mine = started++;
        room *own = room_at(scratch, mine, p);
        tiles_begin();
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < all.tasks; i++) {
            task one = task_at(&all, i), next = task_at(&all, least(i + threads, all.tasks - 1));
            attend(&all, own, &one, &next);
        }
        tiles_end();
    }
    return 0;
}
