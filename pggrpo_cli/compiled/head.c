/* What the output head does with a tile of logits, [rows][columns] of the vocabulary, in one pass each: the sums of a
 * softmax, and in the backward the gradient of the logits.
 *
 * z = factor · logit. Sums are float, of each row by itself: which thread computes it does not matter.
 */
#include "vectors.h"

INLINE wide values_of(const number *from, int64_t left) {
    if (left >= WIDTH) return values_at(from);
    number padded[WIDTH] = {0};
    for (int64_t i = 0; i < left; i++) padded[i] = from[i];
    return values_at(padded);
}

INLINE float largest_of(const number *logits, int64_t columns, float factor) {
    wide most = all(-INFINITY);
    for (int64_t i = 0; i < columns; i += WIDTH) {
        wide z = values_of(logits + i, columns - i) * factor;
        most = chosen((z > most) & lanes_before(columns - i), z, most);
    }
    float lanes[WIDTH], largest = -INFINITY;
    store(lanes, most);
    for (int i = 0; i < WIDTH; i++) largest = lanes[i] > largest ? lanes[i] : largest;
    return largest;
}

/* Σ exp(z − m) and Σ exp(z − m)(z − m) of a row */
INLINE void masses_of(const number *logits, int64_t columns, float factor, float largest, float *mass, float *moment) {
    wide masses = {0}, moments = {0};
    int64_t i = 0;
    for (; i + WIDTH <= columns; i += WIDTH) {
        wide below = values_at(logits + i) * factor - largest, e = exponential(below);
        masses += e, moments += e * below;
    }
    if (i < columns) {
        wide below = values_of(logits + i, columns - i) * factor - largest;
        wide e = chosen(lanes_before(columns - i), exponential(below), all(0));
        masses += e, moments += e * below;
    }
    *mass = sum_of(masses), *moment = sum_of(moments);
}

/* A tile's share of the sums of its rows, [rows] each; moment may be NULL. The tile's first column is entry `first` of the
 * vocabulary; chosen: z of the target, once its tile was here. */
void head_sums(const number *logits, int64_t rows, int64_t columns, int64_t first, const int64_t *targets, float factor,
               float *largest, float *mass, float *moment, float *target_logit, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const number *mine = logits + row * columns;
        int64_t place = targets[row] - first;
        if (place >= 0 && place < columns) target_logit[row] = as_float(mine[place]) * factor;
        float here = largest_of(mine, columns, factor), more_mass, more_moment;
        if (!(here > largest[row])) here = largest[row];
        masses_of(mine, columns, factor, here, &more_mass, &more_moment);
        float shift = largest[row] - here, shrink = expf(shift);
        if (moment) moment[row] = (mass[row] > 0 ? shrink * (moment[row] + shift * mass[row]) : moment[row]) + more_moment;
        mass[row] = mass[row] * shrink + more_mass;
        largest[row] = here;
    }
}

/* logits → the loss's gradient of them: factor · (1[target] s − p (s + t (log p + H))), s and t the gradients [rows] of
 * log-probability and entropy; each may be NULL */
void head_gradient(number *logits, int64_t rows, int64_t columns, int64_t first, const int64_t *targets, float factor,
                   const float *log_mass, const float *slopes, const float *entropies, const float *entropy_slopes,
                   int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        number *mine = logits + row * columns;
        float slope = slopes ? slopes[row] : 0, of_entropy = entropy_slopes ? entropy_slopes[row] : 0;
        float offset = entropy_slopes ? slope + of_entropy * entropies[row] : slope;
        int64_t place = targets[row] - first;
        int here = place >= 0 && place < columns;
        float target = here ? as_float(mine[place]) * factor - log_mass[row] : 0;
        for (int64_t i = 0; i < columns; i += WIDTH) {
            wide logprob = values_of(mine + i, columns - i) * factor - log_mass[row];
            wide gradient = exponential(logprob) * (offset + of_entropy * logprob) * -factor;
            if (columns - i >= WIDTH)
                narrow(mine + i, gradient);
            else {
                number padded[WIDTH];
                narrow(padded, gradient);
                for (int64_t j = 0; j < columns - i; j++) mine[i + j] = padded[j];
            }
        }
        if (here) mine[place] = rounded(factor * (slope - expf(target) * (offset + of_entropy * target)));
    }
}
