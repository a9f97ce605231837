/* Tokens through a decoder of the Llama family, all layers in one call: whole prompts, or one new token for each live row.
 * Compiled on the user's machine by library.py, once for float32 and once for products in bfloat16 (-DBFLOAT16=1).
 *
 * The residual stream, norms and softmaxes are float; what enters a product, and what leaves it, is rounded to `number`,
 * exactly where torch's autocast rounds it. No token's result depends on which others are computed with it.
 */
#include <stdlib.h>
#include "attention.h"

struct layer {
    const float *attention_norm, *mlp_norm;
    const float *query_norm, *key_norm;                          /* [size] or NULL */
    const number *qkv, *out, *gate_up, *down;                    /* packed; blocks of gate and up alternate */
    const float *qkv_bias, *out_bias, *gate_up_bias, *down_bias; /* ordered like the columns, or NULL */
    struct storage prompts, rows;
};

struct model {
    int64_t layers, hidden, heads, key_heads, size, inner, vocabulary;
    int64_t threads;
    float epsilon, scaling;
    const struct layer *layer;
    const float *final_norm;
    const number *head;
    const float *head_bias;
};

struct tokens {
    int64_t count;
    const float *cosine, *sine;    /* [count][size] */
    const int64_t *slots;          /* [count]: where the token's prompt is */
    const int64_t *held;           /* [count]: tokens of the row, or of the prompt, before it */
    const int64_t *prompt_lengths; /* [slots]; NULL: these are the prompts themselves */
    const int64_t *wanted;         /* [logits]: whose logits; NULL: all */
    int64_t logits;
};

/* New keys and values are kept behind those before them; then each token attends, its heads [heads · size] to `mixed`. */
static void attention(const struct model *model, const struct layer *layer, const struct tokens *tokens,
                      const float *qkv, number *mixed) {
    int64_t size = model->size, key_heads = model->key_heads, stacked = model->heads / key_heads;
    int64_t columns = (model->heads + 2 * key_heads) * size, padded = padded_to_width(size);
    int64_t stride = layer->prompts.capacity + layer->rows.capacity;
    int thread = omp_get_thread_num(), threads = omp_get_num_threads();
    number query[stacked * size], key[size];
    for (int64_t item = thread; item < tokens->count * key_heads; item += threads) {
        int64_t token = item / key_heads, head = item % key_heads;
        const float *from = qkv + token * columns, *value = from + (model->heads + key_heads + head) * size;
        turned(from + (model->heads + head) * size, layer->key_norm, model->epsilon, tokens->cosine + token * size,
               tokens->sine + token * size, size, key);
        if (tokens->prompt_lengths)
            keep(&layer->rows, token * key_heads + head, tokens->held[token], key, value, size);
        else
            keep(&layer->prompts, tokens->slots[token] * key_heads + head, tokens->held[token], key, value, size);
    }
    if (!tokens->prompt_lengths) {
#pragma omp barrier
    }
    float *scores = aligned_alloc(64, stacked * stride * sizeof(float)), out[stacked * padded];
    for (int64_t item = thread; item < tokens->count * key_heads; item += threads) {
        int64_t token = item / key_heads, head = item % key_heads, slot = tokens->slots[token];
        const float *from = qkv + token * columns + head * stacked * size;
        for (int64_t g = 0; g < stacked; g++)
            turned(from + g * size, layer->query_norm, model->epsilon, tokens->cosine + token * size,
                   tokens->sine + token * size, size, query + g * size);
        struct segment of_prompt = segment_of(&layer->prompts, slot * key_heads + head, size,
                                              tokens->prompt_lengths ? tokens->prompt_lengths[slot] : tokens->held[token] + 1);
        struct segment of_row = segment_of(&layer->rows, tokens->prompt_lengths ? token * key_heads + head : 0, size,
                                           tokens->prompt_lengths ? tokens->held[token] + 1 : 0);
        struct segment segments[2] = {of_prompt, of_row};
        attend_with((int)stacked, query, segments, size, model->scaling, scores, stride, out);
        number *to = mixed + (token * model->heads + head * stacked) * size;
        for (int64_t g = 0; g < stacked; g++)
            for (int64_t i = 0; i < size; i++) to[g * size + i] = rounded(out[g * padded + i]);
    }
    free(scores);
}

/* x [count][hidden] (overwritten): the embeddings of the tokens → logits [logits][vocabulary].
 * scratch: scratch_floats(model, count). */
void decode(const struct model *model, const struct tokens *tokens, float *x, float *scratch, float *logits) {
    int64_t rows = tokens->count, hidden = model->hidden, inner = model->inner;
    int64_t attended = model->heads * model->size, columns = attended + 2 * model->key_heads * model->size;
    float *qkv = scratch;
    number *input = (number *)(scratch + rows * columns), *mixed = input + rows * hidden;
    number *gated = mixed + rows * attended;
#pragma omp parallel num_threads(model->threads)
    {
        for (const struct layer *layer = model->layer; layer < model->layer + model->layers; layer++) {
            normalize(x, NULL, rows, hidden, layer->attention_norm, model->epsilon, input);
#pragma omp barrier
            product(NARROWED, input, rows, hidden, layer->qkv, layer->qkv_bias, columns, qkv, NULL);
#pragma omp barrier
            attention(model, layer, tokens, qkv, mixed);
#pragma omp barrier
            product(ADDED, mixed, rows, attended, layer->out, layer->out_bias, hidden, x, NULL);
#pragma omp barrier
            normalize(x, NULL, rows, hidden, layer->mlp_norm, model->epsilon, input);
#pragma omp barrier
            product(GATED, input, rows, hidden, layer->gate_up, layer->gate_up_bias, inner, NULL, gated);
#pragma omp barrier
            product(ADDED, gated, rows, inner, layer->down, layer->down_bias, hidden, x, NULL);
#pragma omp barrier
        }
        normalize(x, tokens->wanted, tokens->logits, hidden, model->final_norm, model->epsilon, input);
#pragma omp barrier
        product(NARROWED, input, tokens->logits, hidden, model->head, model->head_bias, model->vocabulary, logits, NULL);
    }
}

int64_t scratch_floats(const struct model *model, int64_t tokens) {
    int64_t attended = model->heads * model->size, columns = attended + 2 * model->key_heads * model->size;
    return tokens * (columns + model->hidden + attended + model->inner) + WIDTH;
}

/* weight [out][in] float → blocks `first`, `first + every`, … of 16 columns; columns beyond `out` are 0 */
void pack(const float *weight, int64_t out, int64_t in, number *packed, int64_t first, int64_t every, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t block = 0; block < (out + WIDTH - 1) / WIDTH; block++) {
        number *to = packed + (first + block * every) * WIDTH * in;
        for (int64_t column = 0; column < WIDTH; column++) {
            int64_t row = block * WIDTH + column;
            for (int64_t k = 0; k < in; k++)
                to[k / STEP * STEP * WIDTH + column * STEP + k % STEP] =
                    row < out ? rounded(weight[row * in + k]) : (number)0;
        }
    }
}
