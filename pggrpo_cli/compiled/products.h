/* Products of a few rows with packed weights, RMSNorm, and what becomes of their results.
 *
 * Weights lie in blocks of 16 output columns: [out / 16][in / STEP][16][STEP]. Each output is one chain of additions over its
 * inputs in their order, however many rows there are and whichever thread computes it.
 */
#pragma once
#include "vectors.h"

#if BFLOAT16
INLINE wide multiplied(wide sum, const number *block, const number *pair) {
    int32_t both;
    memcpy(&both, pair, 4);
    __m512i w;
    memcpy(&w, block, 64);
    return (wide)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32(both));
}
#else
INLINE wide multiplied(wide sum, const number *block, const number *one) { return sum + load(block) * all(*one); }
#endif

/* sums[m][b] = input[m] · the 16 columns of block b, for `rows` rows and two blocks */
INLINE void tile(const int rows, const int ahead, const number *input, int64_t depth, const number *first, const number *second,
                 wide sums[][2]) {
    wide gathered[TILE_ROWS][2];
    for (int m = 0; m < rows; m++) gathered[m][0] = gathered[m][1] = (wide){0};
    for (int64_t k = 0; k < depth; k += STEP) {
        if (ahead) { /* the next two blocks, while these are computed with */
            __builtin_prefetch(first + (2 * depth + k) * WIDTH, 0, 2);
            __builtin_prefetch(second + (2 * depth + k) * WIDTH, 0, 2);
        }
        for (int m = 0; m < rows; m++) {
            gathered[m][0] = multiplied(gathered[m][0], first + k * WIDTH, input + m * depth + k);
            gathered[m][1] = multiplied(gathered[m][1], second + k * WIDTH, input + m * depth + k);
        }
    }
    for (int m = 0; m < rows; m++) sums[m][0] = gathered[m][0], sums[m][1] = gathered[m][1];
}

static void tile_of(int rows, int ahead, const number *input, int64_t depth, const number *first, const number *second,
                    wide sums[][2]) {
    switch (rows) { /* a constant number of rows stays in registers */
    case 1: tile(1, ahead, input, depth, first, second, sums); break;
    case 2: tile(2, ahead, input, depth, first, second, sums); break;
    case 3: tile(3, ahead, input, depth, first, second, sums); break;
    case 4: tile(4, ahead, input, depth, first, second, sums); break;
#if TILE_ROWS > 4
    case 5: tile(5, ahead, input, depth, first, second, sums); break;
    case 6: tile(6, ahead, input, depth, first, second, sums); break;
    case 7: tile(7, ahead, input, depth, first, second, sums); break;
    case 8: tile(8, ahead, input, depth, first, second, sums); break;
    case 9: tile(9, ahead, input, depth, first, second, sums); break;
    case 10: tile(10, ahead, input, depth, first, second, sums); break;
    case 11: tile(11, ahead, input, depth, first, second, sums); break;
    case 12: tile(12, ahead, input, depth, first, second, sums); break;
#endif
    }
}

enum leaves { NARROWED, ADDED, GATED };

/* What a product leaves: output[row][16 · block …]. */
INLINE void leave(enum leaves what, wide sums[2], const float *bias, float *output, number *narrow, int64_t row,
                  int64_t pair, int64_t columns) {
    float parts[2][WIDTH];
    for (int b = 0; b < 2; b++) {
        if (bias) sums[b] += load(bias + (2 * pair + b) * WIDTH);
        store(parts[b], sums[b]);
    }
    if (what == GATED) {
        wide gate, negative;
        for (int i = 0; i < WIDTH; i++) parts[0][i] = through(parts[0][i]), parts[1][i] = through(parts[1][i]);
        gate = load(parts[0]), negative = exponential(-gate);
        store(parts[0], gate / (1.0f + negative));
        number *to = narrow + row * columns + pair * WIDTH;
        int64_t left = columns - pair * WIDTH;
        for (int i = 0; i < WIDTH && i < left; i++) to[i] = rounded(through(parts[0][i]) * parts[1][i]);
        return;
    }
    int64_t left = columns - 2 * pair * WIDTH;
    float *to = output + row * columns + 2 * pair * WIDTH;
    const float *from = &parts[0][0];
    if (left >= 2 * WIDTH) left = 2 * WIDTH;
    if (what == ADDED)
        for (int i = 0; i < left; i++) to[i] += through(from[i]);
    else
        for (int i = 0; i < left; i++) to[i] = through(from[i]);
}

/* this thread's share of the columns of output = input · weightᵀ + bias; called by all threads of a team */
INLINE void product(enum leaves what, const number *input, int64_t rows, int64_t depth, const number *weight,
                    const float *bias, int64_t columns, float *output, number *narrow) {
    int64_t width = what == GATED ? WIDTH : 2 * WIDTH;
    struct share mine = share_of((columns + width - 1) / width, omp_get_thread_num(), omp_get_num_threads());
    int64_t blocks = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t pair = mine.begin; pair < mine.end; pair++) {
        const number *first = weight + 2 * pair * WIDTH * depth, *second = first + WIDTH * depth;
        for (int64_t block = 0; block < blocks; block++) {
            struct share here = share_of(rows, (int)block, (int)blocks);
            wide sums[TILE_ROWS][2];
            tile_of((int)(here.end - here.begin), block == 0, input + here.begin * depth, depth, first, second,
                    sums);
            for (int64_t row = here.begin; row < here.end; row++)
                leave(what, sums[row - here.begin], bias, output, narrow, row, pair, columns);
        }
    }
}

INLINE float inverse_rms(const float *x, int64_t size, float epsilon) {
    wide squares = {0};
    float rest = 0;
    int64_t i = 0;
    for (; i + WIDTH <= size; i += WIDTH) {
        wide v = load(x + i);
        squares += v * v;
    }
    for (; i < size; i++) rest += x[i] * x[i];
    return 1.0f / sqrtf((sum_of(squares) + rest) / (float)size + epsilon);
}

/* rows `wanted` of x, or the first ones */
static void normalize(const float *x, const int64_t *wanted, int64_t rows, int64_t size, const float *weight, float epsilon, number *output) {
    struct share mine = share_of(rows, omp_get_thread_num(), omp_get_num_threads());
    for (int64_t row = mine.begin; row < mine.end; row++) {
        const float *from = x + (wanted ? wanted[row] : row) * size;
        float scale = inverse_rms(from, size, epsilon);
        for (int64_t i = 0; i < size; i++) output[row * size + i] = rounded(weight[i] * (from[i] * scale));
    }
}

