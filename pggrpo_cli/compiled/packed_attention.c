/* Attention of one flat row of tokens, forward and backward: prompts see themselves, completions their prompt and themselves,
 * causally. What it means is in packed_attention.py.
 *
 * A part is a few sequences behind one prompt, or a prompt; a thread computes one key head of a part, a block of queries at
 * a time: all their scores lie in its caches and nowhere else. Parts do not depend on the number of threads, and what
 * several of them give to a prompt's keys is added in their order: neither does any result.
 */
#include "packed.h"

/* What a row's weights exp((score − largest) · scaling) / mass are made of. */
struct mass { float largest, mass; };

/* scores of a row → weights times their mass in `number` */
static struct mass softmax_of(const struct block *block, int64_t query, const float *scores, float scaling, number *weights) {
    wide most = all(-INFINITY), masses = {0};
    for (int64_t b = 0; b < block->blocks; b++) {
        wide score = load(scores + b * WIDTH);
        most = chosen((score > most) & lanes_before(seen(block, query, b * WIDTH)), score, most);
    }
    float lanes[WIDTH], largest = -INFINITY;
    store(lanes, most);
    for (int i = 0; i < WIDTH; i++) largest = lanes[i] > largest ? lanes[i] : largest;
    for (int64_t b = 0; b < block->blocks; b++) {
        wide weight = exponential((load(scores + b * WIDTH) - largest) * scaling);
        weight = chosen(lanes_before(seen(block, query, b * WIDTH)), weight, all(0));
        masses += weight;
        narrow(weights + b * WIDTH, weight);
    }
    return (struct mass){largest, sum_of(masses)};
}

static void attend_block(const struct packed *packed, const struct block *block, int64_t head, const number *query,
                         struct room *room, number *out, struct mass *masses) {
    int64_t stacked = packed->heads / packed->key_heads, rows = block->count * stacked, padded = room->padded;
    gather(packed, block, head, query, padded, room->query);
    struct factor queries = {room->query, padded, STEP}, weights = {room->weights, room->columns, STEP};
    tall(queries, rows, padded / STEP, room->keys, WIDTH * padded, block->blocks, room->scores, room->columns);
    struct mass *first = masses + (block->start + block->first) * packed->heads + head * stacked;
    for (int64_t row = 0; row < rows; row++)
        first[row / stacked * packed->heads + row % stacked] =
            softmax_of(block, row / stacked, room->scores + row * room->columns, packed->scaling,
                       room->weights + row * room->columns);
    tall(weights, rows, block->blocks * WIDTH / STEP, room->depth, WIDTH * room->columns, padded / WIDTH, room->out, padded);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < padded; i++)
            room->out[row * padded + i] /= first[row / stacked * packed->heads + row % stacked].mass;
    scatter(packed, block, head, room->out, padded, out);
}

/* query, out [N][heads][size], key, value [N][key heads][size], masses [N][heads] */
void packed_attention(const struct packed *packed, const number *query, const number *key, const number *value, number *out,
                      struct mass *masses) {
#pragma omp parallel num_threads(packed->threads)
    {
        struct room room = room_of(packed, 0);
        int64_t stacked = packed->heads / packed->key_heads, size = packed->size, stride = packed->key_heads * size;
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < packed->parts * packed->key_heads; item++) {
            const struct part *part = packed->part + item / packed->key_heads;
            int64_t head = item % packed->key_heads, at = part->prompt * stride + head * size;
            int64_t before = padded_to_width(part->prompt_length), start = part->start;
            as_columns(key + at, stride, part->prompt_length, size, 0, room.keys, WIDTH * room.padded);
            as_depth(value + at, stride, part->prompt_length, size, 0, room.depth, WIDTH * room.columns);
            for (int64_t s = part->first; s < part->first + part->count; start += packed->lengths[s++]) {
                int64_t length = packed->lengths[s], step = queries_of(stacked, packed->most_keys);
                at = start * stride + head * size;
                as_columns(key + at, stride, length, size, before, room.keys, WIDTH * room.padded);
                as_depth(value + at, stride, length, size, before, room.depth, WIDTH * room.columns);
                for (int64_t q = 0; q < length; q += step) {
                    struct block block = block_of(start, q, q + step < length ? step : length - q, part->prompt_length);
                    attend_block(packed, &block, head, query, &room, out, masses);
                }
            }
        }
        leave_room(&room);
    }
}

/* Of STEP rows from `row` on: weights P, from what the forward found of them, and slopes P (∂P − Σ P ∂P) · scaling, as b's depth is
 * rows, and the slopes also row by row, in place of weights. */
static void slopes_of(const struct packed *packed, const struct block *block, int64_t head, int64_t row, int64_t rows,
                      const struct mass *masses, struct room *room) {
    int64_t stacked = packed->heads / packed->key_heads, columns = room->columns;
    float deltas[STEP];
    for (int s = 0; s < STEP && row + s < rows; s++) {
        int64_t query = (row + s) / stacked, token = block->start + block->first + query;
        float *scores = room->scores + (row + s) * columns, *of_weights = room->of_weights + (row + s) * columns;
        struct mass of = masses[token * packed->heads + head * stacked + (row + s) % stacked];
        float inverse = 1.0f / of.mass;
        wide sum = {0};
        for (int64_t b = 0; b < block->blocks; b++) {
            wide weight = exponential((load(scores + b * WIDTH) - of.largest) * packed->scaling) * inverse;
            weight = chosen(lanes_before(seen(block, query, b * WIDTH)), weight, all(0));
            store(scores + b * WIDTH, weight);
            sum += weight * load(of_weights + b * WIDTH);
        }
        deltas[s] = sum_of(sum);
    }
    for (int64_t b = 0; b < block->blocks; b++) {
        wide weights[STEP], slopes[STEP];
        for (int s = 0; s < STEP; s++) {
            weights[s] = slopes[s] = all(0);
            if (row + s >= rows) continue;
            int64_t at = (row + s) * columns + b * WIDTH;
            weights[s] = load(room->scores + at);
            slopes[s] = weights[s] * (load(room->of_weights + at) - deltas[s]) * packed->scaling;
            narrow(room->weights + at, slopes[s]);
        }
        interleave(room->weights_together + (b * room->rows + row) * WIDTH, weights);
        interleave(room->slopes_together + (b * room->rows + row) * WIDTH, slopes);
    }
}

static void block_gradients(const struct packed *packed, const struct block *block, int64_t head, const number *query,
                            const number *grad, const struct mass *masses, struct room *room, number *grad_query) {
    int64_t stacked = packed->heads / packed->key_heads, rows = block->count * stacked, padded = room->padded;
    int64_t columns = room->columns, steps = (rows + STEP - 1) / STEP;
    gather(packed, block, head, query, padded, room->query);
    gather(packed, block, head, grad, padded, room->grad);
    for (int64_t row = 0; row < rows; row += STEP) {
        together(room->query + row * padded, padded, rows - row, padded, room->queries_together + row * padded);
        together(room->grad + row * padded, padded, rows - row, padded, room->grads_together + row * padded);
    }
    struct factor queries = {room->query, padded, STEP}, grads = {room->grad, padded, STEP};
    tall(queries, rows, padded / STEP, room->keys, WIDTH * padded, block->blocks, room->scores, columns);
    tall(grads, rows, padded / STEP, room->values, WIDTH * padded, block->blocks, room->of_weights, columns);
    for (int64_t row = 0; row < rows; row += STEP) slopes_of(packed, block, head, row, rows, masses, room);
    struct factor slopes = {room->weights, columns, STEP};
    tall(slopes, rows, block->blocks * WIDTH / STEP, room->depth, WIDTH * columns, padded / WIDTH, room->out, padded);
    scatter(packed, block, head, room->out, padded, grad_query);
    struct factor across = {room->grads_together, STEP, padded * STEP}, down = {room->queries_together, STEP, padded * STEP};
    flat(across, padded, steps, room->weights_together, WIDTH * room->rows, block->blocks, room->of_values, columns);
    flat(down, padded, steps, room->slopes_together, WIDTH * room->rows, block->blocks, room->of_keys, columns);
}

/* columns [padded][room's columns] from `first` on → rows [count][size], float or rounded, and the columns are 0 again */
static void turn_out(float *columns, const struct room *room, int64_t first, int64_t count, int64_t size, float *wide_rows,
                     number *rows, int64_t stride) {
    for (int64_t i = 0; i < size; i++) {
        float *mine = columns + i * room->columns + first;
        for (int64_t j = 0; j < count; j++) {
            if (wide_rows)
                wide_rows[j * size + i] = mine[j];
            else
                rows[j * stride + i] = rounded(mine[j]);
        }
        memset(mine, 0, padded_to_width(count) * sizeof *mine);
    }
}

static void part_gradients(const struct packed *packed, const struct part *part, int64_t head, const number *query,
                           const number *key, const number *value, const number *grad, const struct mass *masses,
                           struct room *room, number *grad_query, number *grad_key, number *grad_value, float *shared) {
    int64_t stacked = packed->heads / packed->key_heads, size = packed->size, stride = packed->key_heads * size;
    int64_t before = padded_to_width(part->prompt_length), start = part->start, block_size = WIDTH * room->padded;
    int64_t at = part->prompt * stride + head * size, step = queries_of(stacked, packed->most_keys);
    as_columns(key + at, stride, part->prompt_length, size, 0, room->keys, block_size);
    as_columns(value + at, stride, part->prompt_length, size, 0, room->values, block_size);
    as_depth(key + at, stride, part->prompt_length, size, 0, room->depth, WIDTH * room->columns);
    for (int64_t s = part->first; s < part->first + part->count; start += packed->lengths[s++]) {
        int64_t length = packed->lengths[s];
        at = start * stride + head * size;
        as_columns(key + at, stride, length, size, before, room->keys, block_size);
        as_columns(value + at, stride, length, size, before, room->values, block_size);
        as_depth(key + at, stride, length, size, before, room->depth, WIDTH * room->columns);
        for (int64_t q = 0; q < length; q += step) {
            struct block block = block_of(start, q, q + step < length ? step : length - q, part->prompt_length);
            block_gradients(packed, &block, head, query, grad, masses, room, grad_query);
        }
        if (!part->prompt_length) continue;
        turn_out(room->of_keys, room, before, length, size, NULL, grad_key + at, stride);
        turn_out(room->of_values, room, before, length, size, NULL, grad_value + at, stride);
    }
    int64_t length = part->prompt_length ? part->prompt_length : packed->lengths[part->first];
    float *mine = shared + part->shared + head * length * size;
    turn_out(room->of_keys, room, 0, length, size, mine, NULL, 0);
    turn_out(room->of_values, room, 0, length, size, mine + packed->key_heads * length * size, NULL, 0);
}

/* what all parts of a prompt gave to its keys and values; the first of them is the prompt itself */
static void add_shared(const struct packed *packed, int64_t first, int64_t head, const float *shared, number *grad_key,
                       number *grad_value) {
    int64_t size = packed->size, length = packed->lengths[packed->part[first].first], last = first + 1;
    while (last < packed->parts && packed->part[last].prompt_length) last++;
    for (int64_t j = 0; j < length * size; j++)
        for (int64_t of_values = 0; of_values < 2; of_values++) {
            float sum = 0;
            for (int64_t p = first; p < last; p++)
                sum += shared[packed->part[p].shared + (of_values * packed->key_heads + head) * length * size + j];
            number *to = of_values ? grad_value : grad_key;
            to[((packed->part[first].start + j / size) * packed->key_heads + head) * size + j % size] = rounded(sum);
        }
}

/* grad, grad_query [N][heads][size], the others as in packed_attention(); shared: room for what parts give to prompts */
void packed_attention_gradients(const struct packed *packed, const number *query, const number *key, const number *value,
                                const number *grad, const struct mass *masses, number *grad_query, number *grad_key,
                                number *grad_value, float *shared) {
    int64_t items = packed->parts * packed->key_heads;
#pragma omp parallel num_threads(packed->threads)
    {
        struct room room = room_of(packed, 1);
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items; item++)
            part_gradients(packed, packed->part + item / packed->key_heads, item % packed->key_heads, query, key, value, grad,
                           masses, &room, grad_query, grad_key, grad_value, shared);
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < items; item++)
            if (!packed->part[item / packed->key_heads].prompt_length)
                add_shared(packed, item / packed->key_heads, item % packed->key_heads, shared, grad_key, grad_value);
        leave_room(&room);
    }
}
