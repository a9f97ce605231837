/* What lies between the products of a decoder layer of the Llama family, forward and backward, in one pass each: residuals and
 * RMSNorm, rotation, gated SiLU. Rows are tokens; sums are float; what enters a product is rounded where autocast rounds it.
 *
 * No result depends on the number of threads. Sizes of hidden states and gates are multiples of 16.
 */
#include <stdlib.h>
#include "products.h"

#define CHUNK 64 /* rows whose shares of a norm's gradient are added before those of others */

/* x (+ more, to `sum`) → RMSNorm of it [rows][size]; more and sum may be NULL */
void normalized(const float *x, const number *more, int64_t rows, int64_t size, const float *weight, float epsilon,
                float *sum, number *output, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const float *mine = x + row * size;
        if (more) {
            for (int64_t i = 0; i < size; i += WIDTH)
                store(sum + row * size + i, load(mine + i) + values_at(more + row * size + i));
            mine = sum + row * size;
        }
        float scale = inverse_rms(mine, size, epsilon);
        for (int64_t i = 0; i < size; i += WIDTH)
            narrow(output + row * size + i, load(weight + i) * (load(mine + i) * scale));
    }
}

/* x + more → sum */
void added(const float *x, const number *more, int64_t count, float *sum, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i += WIDTH) store(sum + i, load(x + i) + values_at(more + i));
}

/* grad = residual + the gradient of x's norm, `narrowed` the same in `number`; shares [size] += that of the weight */
static void row_gradient(const float *x, const number *slope, const float *residual, int64_t size, const float *weight,
                         float epsilon, float *grad, number *narrowed, float *shares) {
    float scale = inverse_rms(x, size, epsilon);
    wide dot = {0};
    for (int64_t i = 0; i < size; i += WIDTH) {
        wide by_weight = values_at(slope + i) * load(x + i);
        dot += by_weight * load(weight + i);
        store(shares + i, load(shares + i) + by_weight * scale);
    }
    float along = sum_of(dot) * scale * scale * scale / (float)size;
    for (int64_t i = 0; i < size; i += WIDTH) {
        wide here = values_at(slope + i) * load(weight + i) * scale - load(x + i) * along + load(residual + i);
        store(grad + i, here);
        narrow(narrowed + i, here);
    }
}

/* x, slope, residual → grad [rows][size] and grad_weight [size]; slope: the gradient of the norm's output */
void normalized_gradient(const float *x, const number *slope, const float *residual, int64_t rows, int64_t size,
                         const float *weight, float epsilon, float *grad, number *narrowed, float *grad_weight,
                         int64_t threads) {
    int64_t chunks = (rows + CHUNK - 1) / CHUNK;
    float *shares = calloc(chunks * size + WIDTH, sizeof *shares);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t chunk = 0; chunk < chunks; chunk++)
        for (int64_t row = chunk * CHUNK; row < (chunk + 1) * CHUNK && row < rows; row++)
            row_gradient(x + row * size, slope + row * size, residual + row * size, size, weight, epsilon, grad + row * size,
                         narrowed + row * size, shares + chunk * size);
    memset(grad_weight, 0, size * sizeof *grad_weight);
    for (int64_t chunk = 0; chunk < chunks; chunk++)
        for (int64_t i = 0; i < size; i++) grad_weight[i] += shares[chunk * size + i];
    free(shares);
}

INLINE void turned_head(const number *from, const float *cosine, const float *sine, int64_t half, number *to) {
    int64_t i = 0;
    for (; i + WIDTH <= half; i += WIDTH) {
        wide low = values_at(from + i), high = values_at(from + half + i);
        narrow(to + i, low * load(cosine + i) - high * load(sine + i));
        narrow(to + half + i, high * load(cosine + half + i) + low * load(sine + half + i));
    }
    for (; i < half; i++) {
        float low = as_float(from[i]), high = as_float(from[half + i]);
        to[i] = rounded(low * cosine[i] - high * sine[i]);
        to[half + i] = rounded(high * cosine[half + i] + low * sine[half + i]);
    }
}

INLINE void turned_back_head(const number *from, const float *cosine, const float *sine, int64_t half, number *to) {
    int64_t i = 0;
    for (; i + WIDTH <= half; i += WIDTH) {
        wide low = values_at(from + i), high = values_at(from + half + i);
        narrow(to + i, low * load(cosine + i) + high * load(sine + half + i));
        narrow(to + half + i, high * load(cosine + half + i) - low * load(sine + i));
    }
    for (; i < half; i++) {
        float low = as_float(from[i]), high = as_float(from[half + i]);
        to[i] = rounded(low * cosine[i] + high * sine[half + i]);
        to[half + i] = rounded(high * cosine[half + i] - low * sine[i]);
    }
}

/* qkv [rows][(heads + 2 · key heads) · size] → query [rows][heads][size], key and value [rows][key heads][size], rotated by
 * cosine and sine [rows][size]; or their gradients back into that of qkv */
void rotated(number *qkv, int64_t rows, int64_t heads, int64_t key_heads, int64_t size, const float *cosine,
             const float *sine, number *query, number *key, number *value, int64_t back, int64_t threads) {
    int64_t half = size / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        number *mine = qkv + row * (heads + 2 * key_heads) * size, *values = mine + (heads + key_heads) * size;
        for (int64_t head = 0; head < heads + key_heads; head++) {
            number *to = head < heads ? query + (row * heads + head) * size : key + (row * key_heads + head - heads) * size;
            if (back)
                turned_back_head(to, cosine + row * size, sine + row * size, half, mine + head * size);
            else
                turned_head(mine + head * size, cosine + row * size, sine + row * size, half, to);
        }
        if (back)
            memcpy(values, value + row * key_heads * size, key_heads * size * sizeof *value);
        else
            memcpy(value + row * key_heads * size, values, key_heads * size * sizeof *value);
    }
}

/* gate_up [rows][2 · inner] → silu(gate) · up [rows][inner] */
void gated(const number *gate_up, int64_t rows, int64_t inner, number *output, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const number *gates = gate_up + row * 2 * inner, *ups = gates + inner;
        for (int64_t i = 0; i < inner; i += WIDTH) {
            wide gate = values_at(gates + i), bent = gate / (1.0f + exponential(-gate));
            number low[WIDTH];
            narrow(low, bent);
            narrow(output + row * inner + i, values_at(low) * values_at(ups + i));
        }
    }
}

/* grad [rows][inner] of gated()'s output → that of gate_up */
void gated_gradient(const number *gate_up, const number *grad, int64_t rows, int64_t inner, number *grad_gate_up,
                    int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const number *gates = gate_up + row * 2 * inner, *ups = gates + inner;
        number *of_gates = grad_gate_up + row * 2 * inner, *of_ups = of_gates + inner;
        for (int64_t i = 0; i < inner; i += WIDTH) {
            wide gate = values_at(gates + i), slope = values_at(grad + row * inner + i);
            wide share = 1.0f / (1.0f + exponential(-gate));
            narrow(of_ups + i, slope * gate * share);
            narrow(of_gates + i, slope * values_at(ups + i) * share * (1.0f + gate * (1.0f - share)));
        }
    }
}
