/* What packed_attention.c computes on: sequences behind their prompts, blocks of their queries, and room for their scores. */
#pragma once
#include <stdlib.h>
#include "tiles.h"

struct part {
    int64_t prompt, prompt_length; /* the tokens that all its sequences see; length 0: the part is a prompt itself */
    int64_t start;                 /* of its first sequence in the flat row; the others follow */
    int64_t first, count;          /* which lengths are its sequences' */
    int64_t shared;                /* where its gradients [2][key heads][prompt][size] of its prompt's keys and values lie */
};

struct packed {
    int64_t heads, key_heads, size;
    float scaling;
    int64_t parts, most_keys; /* most_keys: of any sequence with its prompt, each in blocks of 16 */
    const struct part *part;
    const int64_t *lengths;
    int64_t threads;
};

/* One thread's room. Rows of queries are [tokens · stacked][padded size]; columns are keys, the prompt's first. */
struct room {
    int64_t rows, columns, padded; /* columns: of scores; more than there are keys, so that rows do not share a cache's sets */
    number *query, *grad, *queries_together, *grads_together;
    number *keys, *values;                   /* columns are keys */
    number *depth;                           /* depth is keys: of values in the forward, of keys in the backward */
    float *scores, *of_weights, *out;
    number *weights, *weights_together, *slopes_together;
    float *of_keys, *of_values; /* [padded][columns] */
};

#define ROWS 48

INLINE int64_t queries_of(int64_t stacked, int64_t keys) {
    int64_t rows = keys <= 1024 ? ROWS : keys <= 4096 ? ROWS / 2 : TALL;
    return rows > stacked ? rows / stacked : 1;
}

INLINE void *taken(int64_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    return memset(aligned_alloc(64, bytes), 0, bytes);
}

INLINE struct room room_of(const struct packed *packed, int backward) {
    int64_t stacked = packed->heads / packed->key_heads, padded = padded_to_width(packed->size);
    int64_t queries = queries_of(stacked, packed->most_keys);
    struct room room = {.rows = (queries * stacked + TALL - 1) / TALL * TALL, .columns = packed->most_keys + 2 * WIDTH, .padded = padded};
    int64_t of_queries = room.rows * padded, of_keys = room.columns * padded, of_scores = room.rows * room.columns;
    room.query = taken(of_queries * sizeof(number));
    room.keys = taken(of_keys * sizeof(number)), room.depth = taken(of_keys * sizeof(number));
    room.scores = taken(of_scores * sizeof(float)), room.weights = taken(of_scores * sizeof(number));
    room.out = taken(of_queries * sizeof(float));
    if (!backward) return room;
    room.grad = taken(of_queries * sizeof(number));
    room.queries_together = taken(of_queries * sizeof(number)), room.grads_together = taken(of_queries * sizeof(number));
    room.values = taken(of_keys * sizeof(number)), room.of_weights = taken(of_scores * sizeof(float));
    room.weights_together = taken(of_scores * sizeof(number)), room.slopes_together = taken(of_scores * sizeof(number));
    room.of_keys = taken(of_keys * sizeof(float)), room.of_values = taken(of_keys * sizeof(float));
    return room;
}

INLINE void leave_room(struct room *room) {
    free(room->query), free(room->grad), free(room->queries_together), free(room->grads_together);
    free(room->keys), free(room->values), free(room->depth), free(room->scores), free(room->of_weights), free(room->out);
    free(room->weights), free(room->weights_together), free(room->slopes_together), free(room->of_keys), free(room->of_values);
}

/* Queries of one key head that attend at a time: `count` from number `first` of a sequence at `start` in the flat row. */
struct block { int64_t start, first, count, prompt_length, before, blocks; };

INLINE struct block block_of(int64_t start, int64_t first, int64_t count, int64_t prompt_length) {
    int64_t before = padded_to_width(prompt_length);
    return (struct block){start, first, count, prompt_length, before, (before + padded_to_width(first + count)) / WIDTH};
}

/* How many of the 16 keys from column `column` on the query sees. */
INLINE int64_t seen(const struct block *block, int64_t query, int64_t column) {
    return column < block->before ? block->prompt_length - column : block->before + block->first + query + 1 - column;
}

INLINE void gather(const struct packed *packed, const struct block *block, int64_t head, const number *from, int64_t padded,
                   number *to) {
    int64_t stacked = packed->heads / packed->key_heads, size = packed->size;
    for (int64_t q = 0; q < block->count; q++)
        for (int64_t g = 0; g < stacked; g++)
            memcpy(to + (q * stacked + g) * padded,
                   from + ((block->start + block->first + q) * packed->heads + head * stacked + g) * size, size * sizeof *to);
}

INLINE void scatter(const struct packed *packed, const struct block *block, int64_t head, const float *from, int64_t padded,
                    number *to) {
    int64_t stacked = packed->heads / packed->key_heads, size = packed->size;
    for (int64_t q = 0; q < block->count; q++)
        for (int64_t g = 0; g < stacked; g++) {
            number *row = to + ((block->start + block->first + q) * packed->heads + head * stacked + g) * size;
            const float *mine = from + (q * stacked + g) * padded;
            int64_t i = 0;
            for (; i + WIDTH <= size; i += WIDTH) narrow(row + i, load(mine + i));
            for (; i < size; i++) row[i] = rounded(mine[i]);
        }
}
