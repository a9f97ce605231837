/* Attention of one token of a row or a prompt to the keys before it.
 *
 * Keys lie in blocks of 16: [blocks][size / STEP][16][STEP]; values as they are, [capacity][size padded to 16].
 */
#pragma once
#include "products.h"

#define MOST_STACKED 16 /* query heads of one key head that are kept in registers */

/* A head's vector as the products left it → normalised where the model does that, rotated, rounded. */
static void turned(const float *from, const float *norm, float epsilon, const float *cosine, const float *sine,
                   int64_t size, number *to) {
    float copy[size];
    if (norm) {
        float scale = inverse_rms(from, size, epsilon);
        for (int64_t i = 0; i < size; i++) copy[i] = norm[i] * through(from[i] * scale);
    } else
        memcpy(copy, from, size * sizeof *copy);
    int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        to[i] = rounded(copy[i] * cosine[i] + -copy[i + half] * sine[i]);
        to[i + half] = rounded(copy[i + half] * cosine[i + half] + copy[i] * sine[i + half]);
    }
}

/* scores[g][16 · blocks] of `stacked` queries with keys in blocks */
INLINE void scored(const int stacked, const number *query, const number *keys, int64_t blocks, int64_t size,
                   float scaling, float *scores, int64_t stride) {
    for (int64_t block = 0; block < blocks; block++) {
        wide sums[MOST_STACKED];
        for (int g = 0; g < stacked; g++) sums[g] = (wide){0};
        const number *here = keys + block * WIDTH * size;
        for (int64_t i = 0; i < size; i += STEP)
            for (int g = 0; g < stacked; g++) sums[g] = multiplied(sums[g], here + i * WIDTH, query + g * size + i);
        for (int g = 0; g < stacked; g++) store(scores + g * stride + block * WIDTH, sums[g] * scaling);
    }
}

/* output[g][size] += Σ_j weights[g][j] · values[j]; size a multiple of 16 */
INLINE void weighed(const int stacked, const float *weights, int64_t stride, const number *values, int64_t length,
                    int64_t size, float *output) {
    for (int64_t i = 0; i < size; i += WIDTH) {
        wide sums[MOST_STACKED];
        for (int g = 0; g < stacked; g++) sums[g] = load(output + g * size + i);
        for (int64_t j = 0; j < length; j++) {
            wide value = values_at(values + j * size + i);
            for (int g = 0; g < stacked; g++) sums[g] += value * weights[g * stride + j];
        }
        for (int g = 0; g < stacked; g++) store(output + g * size + i, sums[g]);
    }
}

struct segment { const number *keys, *values; int64_t length; };

/* softmax(q kᵀ · scaling) v over two segments of keys, the prompt's and the row's own */
INLINE void attend(const int stacked, const number *query, const struct segment *segments, int64_t size, float scaling,
                   float *scores, int64_t stride, float *output) {
    int64_t at[2], blocks[2];
    for (int s = 0; s < 2; s++) {
        blocks[s] = (segments[s].length + WIDTH - 1) / WIDTH;
        at[s] = s ? blocks[0] * WIDTH : 0;
        scored(stacked, query, segments[s].keys, blocks[s], size, scaling, scores + at[s], stride);
        for (int g = 0; g < stacked; g++)
            for (int64_t j = segments[s].length; j < blocks[s] * WIDTH; j++) scores[g * stride + at[s] + j] = -INFINITY;
    }
    int64_t all_blocks = blocks[0] + blocks[1];
    float mass[MOST_STACKED];
    for (int g = 0; g < stacked; g++) {
        float *mine = scores + g * stride, largest = -INFINITY;
        for (int64_t j = 0; j < all_blocks * WIDTH; j++) largest = mine[j] > largest ? mine[j] : largest;
        wide masses = {0};
        for (int64_t b = 0; b < all_blocks; b++) {
            wide weight = exponential(load(mine + b * WIDTH) - largest); /* hidden: 2^-126 */
            store(mine + b * WIDTH, weight);
            masses += weight;
        }
        mass[g] = sum_of(masses);
    }
    int64_t padded = padded_to_width(size);
    memset(output, 0, stacked * padded * sizeof *output);
    for (int s = 0; s < 2; s++)
        weighed(stacked, scores + at[s], stride, segments[s].values, segments[s].length, padded, output);
    for (int g = 0; g < stacked; g++)
        for (int64_t i = 0; i < padded; i++) output[g * padded + i] /= mass[g];
}

static void attend_with(int stacked, const number *query, const struct segment *segments, int64_t size, float scaling,
                        float *scores, int64_t stride, float *output) {
    switch (stacked) {
    case 1: attend(1, query, segments, size, scaling, scores, stride, output); break;
    case 2: attend(2, query, segments, size, scaling, scores, stride, output); break;
    case 3: attend(3, query, segments, size, scaling, scores, stride, output); break;
    case 4: attend(4, query, segments, size, scaling, scores, stride, output); break;
    case 7: attend(7, query, segments, size, scaling, scores, stride, output); break;
    case 8: attend(8, query, segments, size, scaling, scores, stride, output); break;
    default: attend(stacked, query, segments, size, scaling, scores, stride, output);
    }
}

/* Where keys and values are kept: of prompts in slots, of completions in rows; head by head. */
struct storage { number *keys, *values; int64_t capacity; }; /* capacity in keys, a multiple of 16 */

INLINE struct segment segment_of(const struct storage *storage, int64_t place, int64_t size, int64_t length) {
    int64_t at = place * storage->capacity;
    return (struct segment){storage->keys + at * size, storage->values + at * padded_to_width(size), length};
}

static void keep(const struct storage *storage, int64_t place, int64_t position, const number *key, const float *value,
                 int64_t size) {
    struct segment to = segment_of(storage, place, size, 0);
    number *block = (number *)to.keys + position / WIDTH * WIDTH * size;
    number *values = (number *)to.values + position * padded_to_width(size);
    for (int64_t i = 0; i < size; i++) {
        block[i / STEP * STEP * WIDTH + position % WIDTH * STEP + i % STEP] = key[i];
        values[i] = rounded(value[i]);
    }
}
