/* Sixteen floats at a time, and the numbers that enter products: float, or bfloat16 by -DBFLOAT16=1. */
#pragma once
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>
#if BFLOAT16
#include <immintrin.h>
typedef uint16_t number;
#define STEP 2
#else
typedef float number;
#define STEP 1
#endif

#define WIDTH 16
#if defined(__AVX512F__)
#define TILE_ROWS 12 /* × 2 blocks of columns: 24 of the 32 registers gather sums */
#else
#define TILE_ROWS 4
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float wide __attribute__((vector_size(64)));
typedef int32_t wide_int __attribute__((vector_size(64)));

INLINE wide load(const float *from) { wide v; memcpy(&v, from, sizeof v); return v; }
INLINE void store(float *to, wide v) { memcpy(to, &v, sizeof v); }
INLINE wide all(float x) { return (wide){0} + x; }
INLINE wide chosen(wide_int where, wide yes, wide no) { return (wide)(((wide_int)yes & where) | ((wide_int)no & ~where)); }

/* −1 in the first `left` lanes, 0 behind them */
INLINE wide_int lanes_before(int64_t left) {
    const wide_int lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lanes < (int32_t)(left < WIDTH ? left : WIDTH);
}

INLINE int64_t padded_to_width(int64_t size) { return (size + WIDTH - 1) / WIDTH * WIDTH; }

INLINE float as_float(number x) {
#if BFLOAT16
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
#else
    return x;
#endif
}

/* to the nearest, ties to even, as torch rounds */
INLINE number rounded(float x) {
#if BFLOAT16
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t even = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return (number)((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : even);
#else
    return x;
#endif
}

INLINE wide values_at(const number *from) {
#if BFLOAT16
    __m256i narrow;
    memcpy(&narrow, from, 32);
    return (wide)_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
#else
    return load(from);
#endif
}

INLINE void narrow(number *to, wide v) {
#if BFLOAT16
    __m256bh narrowed = _mm512_cvtneps_pbh((__m512)v);
    memcpy(to, &narrowed, 32);
#else
    store(to, v);
#endif
}

INLINE float through(float x) { return as_float(rounded(x)); }

/* exp for x ≤ 0 or small, 2 units in the last place: 2^n · 2^f, f in [−½, ½] */
INLINE wide exponential(wide x) {
    wide t = x * 1.44269504088896341f;
    t = chosen(t < -126.0f, all(-126.0f), t);
    t = chosen(t > 126.0f, all(126.0f), t);
    wide shifted = t + 12582912.0f; /* 1.5 · 2^23: the integer part lands in the low bits */
    wide whole = shifted - 12582912.0f;
    wide f = t - whole;
    wide p = all(1.5403530393381606e-4f);
    p = p * f + 1.3333558146428443e-3f;
    p = p * f + 9.6181291076284772e-3f;
    p = p * f + 5.5504108664821580e-2f;
    p = p * f + 2.4022650695910072e-1f;
    p = p * f + 6.9314718055994531e-1f;
    p = p * f + 1.0f;
    wide_int exponent = __builtin_convertvector(whole, wide_int);
    exponent = (exponent + 127) << 23;
    wide scale;
    memcpy(&scale, &exponent, sizeof scale);
    return p * scale;
}

INLINE float sum_of(wide v) {
    float parts[WIDTH], sum = 0;
    store(parts, v);
    for (int half = WIDTH / 2; half; half /= 2)
        for (int i = 0; i < half; i++) parts[i] += parts[i + half];
    sum = parts[0];
    return sum;
}

struct share { int64_t begin, end; };

INLINE struct share share_of(int64_t count, int thread, int threads) {
    return (struct share){count * thread / threads, count * (thread + 1) / threads};
}

