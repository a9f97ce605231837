/* Small products within a cache: out [rows][16 · blocks] = a · b, and the layouts that they read.
 *
 * a: STEP numbers of a row that follow each other in depth lie together, rows `row` and steps `step` numbers apart.
 * b: blocks of 16 columns, [depth / STEP][16][STEP] each, `block` numbers apart.
 */
#pragma once
#include "products.h"

#if defined(__AVX512F__)
#define TALL 12 /* rows of a at a time, where they are tokens; 24 sums stay in registers */
#define FLAT 8  /* where they are a head's numbers */
#else
#define TALL 4
#define FLAT 4
#endif

struct factor { const number *from; int64_t row, step; };

INLINE void few(const int rows, const int blocks, const int added, struct factor a, int64_t steps, const number *b,
                int64_t block, float *out, int64_t stride) {
    wide sums[TALL][2];
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < blocks; n++) sums[m][n] = added ? load(out + m * stride + n * WIDTH) : (wide){0};
    const number *here[TALL / 2];
    for (int m = 0; m < rows; m += 2) here[m / 2] = a.from + m * a.row;
    for (int64_t s = 0; s < steps; s++, b += WIDTH * STEP) {
        for (int m = 0; m < rows; m++)
            for (int n = 0; n < blocks; n++)
                sums[m][n] = multiplied(sums[m][n], b + n * block, here[m / 2] + (m % 2) * a.row);
        for (int m = 0; m < rows; m += 2) here[m / 2] += a.step;
    }
    for (int m = 0; m < rows; m++)
        for (int n = 0; n < blocks; n++) store(out + m * stride + n * WIDTH, sums[m][n]);
}

INLINE void blocked(const int most, const int added, struct factor a, int64_t rows, int64_t steps, const number *b, int64_t block,
                    int64_t blocks, float *out, int64_t stride) {
    for (int64_t n = 0; n < blocks; n += 2)
        for (int64_t m = 0; m < rows; m += most) {
            struct factor mine = {a.from + m * a.row, a.row, a.step};
            float *to = out + m * stride + n * WIDTH;
            if (n + 1 < blocks)
                few(most, 2, added, mine, steps, b + n * block, block, to, stride);
            else
                few(most, 1, added, mine, steps, b + n * block, block, to, stride);
        }
}

/* out = a · b; `rows` is filled up to a multiple of TALL, so a and out must have as many */
static void tall(struct factor a, int64_t rows, int64_t steps, const number *b, int64_t block, int64_t blocks, float *out,
                 int64_t stride) {
    blocked(TALL, 0, a, rows, steps, b, block, blocks, out, stride);
}

/* out += a · b; rows a multiple of FLAT */
static void flat(struct factor a, int64_t rows, int64_t steps, const number *b, int64_t block, int64_t blocks, float *out,
                 int64_t stride) {
    blocked(FLAT, 1, a, rows, steps, b, block, blocks, out, stride);
}

/* rows [count][size], `stride` apart, as the columns of a b: b's `first` column (a multiple of 16) and those behind it */
static void as_columns(const number *from, int64_t stride, int64_t count, int64_t size, int64_t first, number *b,
                       int64_t block) {
    for (int64_t j = 0; j < count; j++) {
        number *to = b + (first + j) / WIDTH * block + (first + j) % WIDTH * STEP;
        for (int64_t i = 0; i < size; i += STEP) memcpy(to + i * WIDTH, from + j * stride + i, STEP * sizeof *to);
    }
    for (int64_t j = first + count; j < first + padded_to_width(count); j++) /* 0 · NaN of a longer sequence would be NaN */
        for (int64_t i = 0; i < size; i += STEP)
            memset(b + j / WIDTH * block + j % WIDTH * STEP + i * WIDTH, 0, STEP * sizeof *b);
}

/* the STEP rows from `from` on, number by number; a row that is not there is 0 */
INLINE void together(const number *from, int64_t stride, int64_t left, int64_t size, number *to) {
#if STEP == 1
    memcpy(to, from, size * sizeof *to);
#else
    if (left > 1)
        for (int64_t i = 0; i < size; i++) to[2 * i] = from[i], to[2 * i + 1] = from[stride + i];
    else
        for (int64_t i = 0; i < size; i++) to[2 * i] = from[i], to[2 * i + 1] = 0;
#endif
}

/* rows [count][size] as the depth of a b, from its `first` (a multiple of 16) on */
static void as_depth(const number *from, int64_t stride, int64_t count, int64_t size, int64_t first, number *b, int64_t block) {
    for (int64_t j = 0; j < count; j += STEP)
        for (int64_t i = 0; i < size; i += WIDTH)
            together(from + j * stride + i, stride, count - j, size - i < WIDTH ? size - i : WIDTH,
                     b + i / WIDTH * block + (first + j) * WIDTH);
    int64_t end = first + (count + STEP - 1) / STEP * STEP, left = first + padded_to_width(count) - end;
    for (int64_t i = 0; i < size; i += WIDTH) memset(b + i / WIDTH * block + end * WIDTH, 0, left * WIDTH * sizeof *b);
}

INLINE void interleave(number *to, const wide *rows) {
#if STEP == 1
    store(to, rows[0]);
#else
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)rows[0]));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)rows[1]));
    low = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    memcpy(to, &low, 64);
#endif
}
