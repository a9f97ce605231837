/* From logits to the next token of each row: a keyed draw from softmax(logits / temperature), or the largest logit.
 *
 * The draw is that of engine/draws.py, where it is explained: the `most` largest entries get a Gumbel number of their own, the
 * rest share one. Of equal logits the one with the lower number is the larger.
 */
#include <math.h>
#include <stdlib.h>
#include "vectors.h"

#define CHUNK (WIDTH * WIDTH)

struct draw { int64_t top, golden, rest; };

struct candidate { float value; int64_t token; };

static uint64_t mixed(uint64_t v) {
    v = (v ^ v >> 30) * 0xBF58476D1CE4E5B9u;
    v = (v ^ v >> 27) * 0x94D049BB133111EBu;
    return v ^ v >> 31;
}

static double gumbel(uint64_t key, int64_t item, const struct draw *draw) {
    uint64_t golden = (uint64_t)draw->golden, bits = mixed(mixed(key ^ (uint64_t)item * golden) + golden) >> 11;
    return -log(-log(((double)bits + 0.5) * 0x1p-53));
}

static int before(struct candidate a, struct candidate b) {
    return a.value > b.value || (a.value == b.value && a.token < b.token);
}

/* the `count` that come before all others to the front */
static void partition(struct candidate *all, int64_t length, int64_t count) {
    int64_t low = 0, high = length - 1;
    while (low < high) {
        struct candidate pivot = all[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (before(all[i], pivot)) i++;
            while (before(pivot, all[j])) j--;
            if (i <= j) {
                struct candidate swapped = all[i];
                all[i++] = all[j], all[j--] = swapped;
            }
        }
        if (count - 1 <= j)
            high = j;
        else if (count - 1 >= i)
            low = i;
        else
            return;
    }
}

/* the `top` largest of scaled [chunks · 256] to the front of `found`; largest [chunks · 16]: of every 16th entry of a chunk */
static int64_t top_of(const float *scaled, const float *largest, int64_t chunks, int64_t top, int64_t vocabulary,
                      struct candidate *found) {
    float least = -INFINITY; /* so many lanes have a largest entry of at least this: as many entries do */
    if (chunks * WIDTH > top) {
        for (int64_t lane = 0; lane < chunks * WIDTH; lane++) found[lane] = (struct candidate){largest[lane], lane};
        partition(found, chunks * WIDTH, top);
        least = found[0].value;
        for (int64_t i = 1; i < top; i++) least = found[i].value < least ? found[i].value : least;
    }
    int64_t count = 0;
    for (int64_t lane = 0; lane < chunks * WIDTH; lane++) {
        if (largest[lane] < least) continue;
        int64_t first = lane / WIDTH * CHUNK + lane % WIDTH;
        for (int64_t token = first; token < first + CHUNK && token < vocabulary; token += WIDTH)
            if (scaled[token] >= least) found[count++] = (struct candidate){scaled[token], token};
    }
    if (count > top) partition(found, count, top);
    return count < top ? count : top;
}

/* of all entries but the first `count` of `found`; −1 if none is finite */
static int64_t drawn_from_rest(const float *scaled, int64_t vocabulary, const struct candidate *found, int64_t count,
                               uint64_t key, const struct draw *draw) {
    int64_t token = -1;
    double best = -INFINITY;
    char *taken = calloc(vocabulary, 1);
    for (int64_t i = 0; i < count; i++) taken[found[i].token] = 1;
    for (int64_t item = 0; item < vocabulary; item++) {
        if (taken[item] || scaled[item] == -INFINITY) continue;
        double score = scaled[item] + gumbel(key, item, draw);
        if (score > best) best = score, token = item;
    }
    free(taken);
    return token;
}

static int64_t drawn(const float *scaled, const float *largest, int64_t chunks, int64_t vocabulary, float log_mass,
                     uint64_t key, const struct draw *draw, struct candidate *found) {
    int64_t count = top_of(scaled, largest, chunks, draw->top < vocabulary ? draw->top : vocabulary, vocabulary, found);
    int64_t token = found[0].token;
    double best = -INFINITY, mass = 0;
    for (int64_t i = 0; i < count; i++) {
        double logprob = found[i].value - log_mass, score = logprob + gumbel(key, found[i].token, draw);
        mass += exp(logprob);
        if (score > best) best = score, token = found[i].token;
    }
    if (count == vocabulary || mass >= 1 || log(1 - mass) + gumbel(key, vocabulary, draw) <= best) return token;
    int64_t other = drawn_from_rest(scaled, vocabulary, found, count, mixed(key + (uint64_t)draw->rest), draw);
    return other < 0 ? token : other; /* none left: the mass was a rounding error */
}

/* logits [rows][vocabulary], keys [rows] → tokens [rows] and their log-probabilities under softmax(logits / temperature).
 * temperature 0: the largest logit, and softmax(logits). A row with NaN gives token 0 and NaN. */
void choose(const float *logits, int64_t rows, int64_t vocabulary, float temperature, const int64_t *keys,
            const struct draw *draw, int64_t threads, int64_t *tokens, float *logprobs) {
    int64_t chunks = (vocabulary + CHUNK - 1) / CHUNK;
#pragma omp parallel num_threads(threads)
    {
        float *scaled = aligned_alloc(64, chunks * CHUNK * sizeof(float)), *largest = malloc(chunks * WIDTH * sizeof(float));
        struct candidate *found = malloc(chunks * CHUNK * sizeof *found);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            const float divisor = temperature > 0 ? temperature : 1, *from = logits + row * vocabulary;
            for (int64_t i = 0; i < vocabulary; i++) scaled[i] = from[i] / divisor;
            for (int64_t i = vocabulary; i < chunks * CHUNK; i++) scaled[i] = -INFINITY;
            wide most = all(-INFINITY);
            for (int64_t chunk = 0; chunk < chunks; chunk++) {
                wide here = all(-INFINITY);
                for (int64_t i = chunk * CHUNK; i < (chunk + 1) * CHUNK; i += WIDTH) {
                    wide v = load(scaled + i);
                    here = chosen(v > here, v, here);
                }
                store(largest + chunk * WIDTH, here);
                most = chosen(here > most, here, most);
            }
            float lanes[WIDTH], top = -INFINITY;
            store(lanes, most);
            for (int i = 0; i < WIDTH; i++) top = lanes[i] > top ? lanes[i] : top;
            wide masses = {0};
            for (int64_t i = 0; i < chunks * CHUNK; i += WIDTH) {
                masses += exponential(load(scaled + i) - top);
            }
            float log_mass = logf(sum_of(masses)) + top;
            int64_t token = 0;
            if (log_mass == log_mass) {
                if (temperature > 0)
                    token = drawn(scaled, largest, chunks, vocabulary, log_mass, (uint64_t)keys[row], draw, found);
                else
                    while (scaled[token] != top) token++;
            }
            tokens[row] = token;
            logprobs[row] = scaled[token] - log_mass;
        }
        free(scaled), free(largest), free(found);
    }
}
