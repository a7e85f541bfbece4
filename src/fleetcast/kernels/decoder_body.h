/* The loops of decoder.c, compiled once per instruction set: NAME(x) adds its suffix, LANES is floats of a register. */

typedef float NAME(V) __attribute__((vector_size(LANES * 4)));
typedef int32_t NAME(I) __attribute__((vector_size(LANES * 4)));
typedef uint32_t NAME(U) __attribute__((vector_size(LANES * 4)));
typedef uint16_t NAME(H) __attribute__((vector_size(LANES * 2)));
typedef int8_t NAME(B) __attribute__((vector_size(LANES)));
#define V NAME(V)
#define I NAME(I)
#define U NAME(U)
#define H NAME(H)
#define B NAME(B)
#define ROUND_UP(n) (((n) + LANES - 1) / LANES * LANES)

INLINE V NAME(all)(float x) { return x - (V){0}; }

INLINE V NAME(load)(const float *p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void NAME(store)(float *p, V v) { memcpy(p, &v, sizeof v); }

INLINE V NAME(load_half)(const uint16_t *p) {
#if defined(__AVX512F__) && LANES == 16
    return (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#else
    H h;
    memcpy(&h, p, sizeof h);
    return (V)(__builtin_convertvector(h, U) << 16);
#endif
}

INLINE V NAME(load_byte)(const int8_t *p) {
#if defined(__AVX512F__) && LANES == 16
    return (V)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
#elif defined(__AVX2__) && LANES == 8
    return (V)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
    B b;
    memcpy(&b, p, sizeof b);
    return __builtin_convertvector(b, V);
#endif
}

/* Rounds to the nearest bf16, ties to even; what is not a number stays so. */
INLINE void NAME(store_half)(uint16_t *p, V v) {
    U u = (U)v;
    u = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    U nan = (U)(v != v);
    H h = __builtin_convertvector((u & ~nan) | (0x7fc0 & nan), H);
    memcpy(p, &h, sizeof h);
}

INLINE float NAME(sum)(V v) {
#if defined(__AVX512F__) && LANES == 16
    return _mm512_reduce_add_ps((__m512)v);
#else
    float s[LANES];
    NAME(store)(s, v);
    for (int n = LANES / 2; n; n /= 2)
        for (int i = 0; i < n; i++) s[i] += s[i + n];
    return s[0];
#endif
}

/* The sums of four registers, one after the other. */
INLINE void NAME(sum4)(const V *v, float *out) {
#if defined(__AVX512F__) && LANES == 16
    __m512 a = (__m512)v[0], b = (__m512)v[1], c = (__m512)v[2], d = (__m512)v[3];
    a = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    c = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512d e = (__m512d)a, f = (__m512d)c;
    a = _mm512_add_ps((__m512)_mm512_unpacklo_pd(e, f), (__m512)_mm512_unpackhi_pd(e, f));
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
#else
    for (int i = 0; i < 4; i++) out[i] = NAME(sum)(v[i]);
#endif
}

INLINE V NAME(larger)(V a, V b) {
    I m = a > b;
    return (V)(((I)a & m) | ((I)b & ~m));
}

/* e^x to 2 units in the last place (Cody and Waite's reduction, Taylor to x^6); below -87 it is 0. */
INLINE V NAME(exp)(V x) {
    I low = x < -87.0f;
    x = -NAME(larger)(NAME(all)(-88.0f), -x); /* what is not a number stays so: the second of the two is kept */
    x = NAME(larger)(NAME(all)(-87.0f), x);
    V n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;
    V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V p = r * (1.0f / 720) + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    I e = __builtin_convertvector(n, I) << 23;
    return (V)((I)((V)((I)p + e)) & ~low);
}

/* A row of any kind as floats, times scale; dst has room for whole registers, and the rest of the last is 0. */
INLINE void NAME(widen)(int kind, const void *src, float scale, long n, float *dst) {
    long i = 0;
    if (kind == FP32)
        for (; i + LANES <= n; i += LANES) NAME(store)(dst + i, NAME(load)((const float *)src + i));
    else if (kind == BF16)
        for (; i + LANES <= n; i += LANES) NAME(store)(dst + i, NAME(load_half)((const uint16_t *)src + i));
    else
        for (; i + LANES <= n; i += LANES) NAME(store)(dst + i, NAME(load_byte)((const int8_t *)src + i) * scale);
    for (; i < n; i++) dst[i] = one(kind, src, i) * (kind == INT8 ? scale : 1.0f);
    for (long end = ROUND_UP(n); i < end; i++) dst[i] = 0.0f;
}

INLINE void NAME(narrow)(int kind, const float *src, long n, void *dst) {
    long i = 0;
    if (kind == FP32) {
        memcpy(dst, src, n * sizeof(float));
        return;
    }
    for (; i + LANES <= n; i += LANES) NAME(store_half)((uint16_t *)dst + i, NAME(load)(src + i));
    for (; i < n; i++) ((uint16_t *)dst)[i] = half(src[i]);
}

#define AHEAD 4096 /* bytes: what narrow weights need to be asked for in time; fp32's the processor foresees itself */

/* Dot products of a row of weights with `m` rows of x: four sums each, in the same order whatever m is. */
INLINE void NAME(dots)(int kind, int m, const Linear *a, const float *x, const char *w, float *out) {
    V acc[4][4], v[4];
    long i = 0, k = a->k, xs = a->stride;
    for (int r = 0; r < m; r++)
        for (int j = 0; j < 4; j++) acc[r][j] = NAME(all)(0.0f);
    for (; i + 4 * LANES <= k; i += 4 * LANES) {
        if (kind != FP32)
            for (int j = 0; j < 4 * LANES * size_of(kind); j += 64) __builtin_prefetch(w + i * size_of(kind) + AHEAD + j);
        for (int j = 0; j < 4; j++) {
            long at = i + j * LANES;
            v[j] = kind == FP32 ? NAME(load)((const float *)w + at)
                : kind == BF16 ? NAME(load_half)((const uint16_t *)w + at) : NAME(load_byte)((const int8_t *)w + at);
        }
        for (int r = 0; r < m; r++)
            for (int j = 0; j < 4; j++) acc[r][j] += v[j] * NAME(load)(x + r * xs + i + j * LANES);
    }
    for (; i + LANES <= k; i += LANES) {
        V u = kind == FP32 ? NAME(load)((const float *)w + i)
            : kind == BF16 ? NAME(load_half)((const uint16_t *)w + i) : NAME(load_byte)((const int8_t *)w + i);
        for (int r = 0; r < m; r++) acc[r][0] += u * NAME(load)(x + r * xs + i);
    }
    for (int r = 0; r < m; r++) {
        float tail = 0.0f;
        for (long t = i; t < k; t++) tail += one(kind, w, t) * x[r * xs + t];
        out[r] = NAME(sum)((acc[r][0] + acc[r][1]) + (acc[r][2] + acc[r][3])) + tail;
    }
}

#ifdef __AVX512BF16__
/* As dots, of bf16 weights with bf16 rows, on the processor's own products of pairs. */
INLINE void NAME(dots_half)(int m, const Linear *a, const uint16_t *x, const uint16_t *w, float *out) {
    __m512 acc[8][2];
    V sum[8];
    long i = 0, k = a->k, xs = a->stride;
_Pragma("GCC unroll 8")
    for (int r = 0; r < m; r++) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    for (; i + 64 <= k; i += 64) {
        __builtin_prefetch((const char *)(w + i) + AHEAD), __builtin_prefetch((const char *)(w + i + 32) + AHEAD);
        __m512bh u = (__m512bh)_mm512_loadu_si512(w + i), v = (__m512bh)_mm512_loadu_si512(w + i + 32);
_Pragma("GCC unroll 8")
        for (int r = 0; r < m; r++) {
            acc[r][0] = _mm512_dpbf16_ps(acc[r][0], u, (__m512bh)_mm512_loadu_si512(x + r * xs + i));
            acc[r][1] = _mm512_dpbf16_ps(acc[r][1], v, (__m512bh)_mm512_loadu_si512(x + r * xs + i + 32));
        }
    }
_Pragma("GCC unroll 8")
    for (int r = 0; r < 8; r++) sum[r] = r < m ? (V)_mm512_add_ps(acc[r][0], acc[r][1]) : NAME(all)(0.0f);
    NAME(sum4)(sum, out);
    if (m > 4) NAME(sum4)(sum + 4, out + 4);
    if (i < k)
        for (int r = 0; r < m; r++)
            for (long t = i; t < k; t++) out[r] += from_half(w[t]) * from_half(x[r * xs + t]);
}
#endif

#ifdef __AVX512BF16__
/* One panel of 64 outputs (decoder_panels.h), of every row of x. */
static void NAME(panels)(const void *task, long item, float *scratch) {
    const Linear *a = task;
    long pairs = (a->k + 1) / 2, first = item * 64, count = a->n - first < 64 ? a->n - first : 64;
    const uint16_t *w = (const uint16_t *)((const char *)a->weight + item * a->row_bytes);
    memset(scratch, 0, a->m * 64 * sizeof(float));
    for (long i = 0; i < pairs; i += PAIRS, w += PAIRS * 128)
        panel_rows(a->m, w, a->half + 2 * i, a->stride, pairs - i < PAIRS ? pairs - i : PAIRS, scratch);
    for (long r = 0; r < a->m; r++) {
        float *y = scratch + r * 64;
        if (a->bias)
            for (long j = 0; j < count; j++) y[j] += a->bias[first + j];
        NAME(narrow)(BF16, y, count, (uint16_t *)a->out + r * a->n + first);
    }
}
#endif

/* As dots, of 4-bit weights: groups of 32, byte i of a group holds its weights i (low) and i + 16 (high). */
INLINE void NAME(dots4)(int m, const Linear *a, const float *x, const char *w, const uint16_t *scale, float *out) {
    V acc[4][2];
    for (int r = 0; r < m; r++) acc[r][0] = acc[r][1] = NAME(all)(0.0f);
    for (long g = 0; g < a->k / GROUP; g++, w += GROUP / 2) {
        float s = from_half(scale[2 * g]), zero = from_half(scale[2 * g + 1]) - 8.0f * s;
        if (g % 4 == 0) __builtin_prefetch(w + AHEAD);
        for (int part = 0; part < GROUP / 2; part += LANES) {
#if defined(__AVX512F__) && LANES == 16
            I wide = (I)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(w + part)));
#elif defined(__AVX2__) && LANES == 8
            I wide = (I)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(w + part)));
#else
            B b;
            memcpy(&b, w + part, sizeof b);
            I wide = __builtin_convertvector(b, I) & 255;
#endif
            V low = __builtin_convertvector(wide & 15, V) * s + zero;
            V high = __builtin_convertvector(wide >> 4, V) * s + zero;
            for (int r = 0; r < m; r++) {
                const float *place = x + r * a->stride + g * GROUP + part;
                acc[r][0] += low * NAME(load)(place);
                acc[r][1] += high * NAME(load)(place + GROUP / 2);
            }
        }
    }
    for (int r = 0; r < m; r++) out[r] = NAME(sum)(acc[r][0] + acc[r][1]);
}

INLINE void NAME(linear_rows)(int kind, int m, const Linear *a, long first, long last, long row) {
    const float *x = a->x ? a->x + row * a->stride : NULL;
    for (long n = first; n < last; n++) {
        float found[8];
        const char *w = (const char *)a->weight + n * a->row_bytes;
        if (kind == INT4) NAME(dots4)(m, a, x, w, (const uint16_t *)a->scale + n * (a->k / GROUP * 2), found);
#ifdef __AVX512BF16__
        else if (kind == BF16 && a->half)
            NAME(dots_half)(m, a, a->half + row * a->stride, (const uint16_t *)w, found);
#endif
        else NAME(dots)(kind, m > 4 ? 4 : m, a, x, w, found); /* more only come where there are products of pairs */
        for (int r = 0; r < m; r++) {
            float y = found[r];
            if (kind == INT8) y *= ((const float *)a->scale)[n];
            if (a->bias) y += a->bias[n];
            put(a->out_kind, a->out, (row + r) * a->n + n, y);
        }
    }
}

#define CASE(kind, m)                                                                                                  \
    case m: NAME(linear_rows)(kind, m, a, first, last, row); break;
#define EACH_M(kind)                                                                                                   \
    for (long row = 0, most = kind == BF16 && a->half ? 8 : 4; row < a->m; row += most)                                \
        switch (a->m - row < most ? a->m - row : most) {                                                               \
            CASE(kind, 1) CASE(kind, 2) CASE(kind, 3)                                                                  \
            CASE(kind, 4) CASE(BF16, 5) CASE(BF16, 6) CASE(BF16, 7) CASE(BF16, 8)                                      \
        }

/* Some outputs, of every row of x. */
static void NAME(linear)(const void *task, long item, float *scratch) {
    const Linear *a = task;
    long first = item * a->step, last = first + a->step < a->n ? first + a->step : a->n;
    (void)scratch;
    if (a->kind == FP32) EACH_M(FP32)
    else if (a->kind == BF16) EACH_M(BF16)
    else if (a->kind == INT8) EACH_M(INT8)
    else EACH_M(INT4)
}

/* Softmax over n scores, in place, without the division; returns the sum. */
INLINE float NAME(weigh)(float *s, long n) {
    V peak = NAME(all)(-INFINITY), sum = NAME(all)(0.0f);
    long whole = n / LANES * LANES;
    float top = -INFINITY;
    for (long i = 0; i < whole; i += LANES) peak = NAME(larger)(peak, NAME(load)(s + i));
    for (int i = 0; i < LANES; i++) top = peak[i] > top ? peak[i] : top;
    for (long i = whole; i < n; i++) top = s[i] > top ? s[i] : top;
    for (long i = n; i < ROUND_UP(n); i++) s[i] = -INFINITY;
    for (long i = 0; i < n; i += LANES) {
        V e = NAME(exp)(NAME(load)(s + i) - top);
        NAME(store)(s + i, e);
        sum += e;
    }
    return NAME(sum)(sum);
}

/* Keys or values of one head, at positions from to from + n, as floats, `wide` apart; asks for those of the next tile,
 * up to position stop, since heads lie too far apart for the processor to foresee them. */
INLINE void NAME(fetch)(const Attend *a, const Sequence *q, const char *base, const float *scales, long head, long from,
                        long n, long stop, long wide, float *dst) {
    long size = a->width * size_of(a->kind);
    for (long i = 0; i < n; i++) {
        long p = from + i, slot = (long)q->table[p / BLOCK] * BLOCK + p % BLOCK, at = slot * a->kv_heads + head;
        const char *src = base + at * size;
        if (p + TILE < stop) {
            long next = (long)q->table[(p + TILE) / BLOCK] * BLOCK + (p + TILE) % BLOCK;
            const char *ahead = base + (next * a->kv_heads + head) * size;
            for (long line = 0; line < size; line += 64) __builtin_prefetch(ahead + line);
        }
        float scale = a->kind == INT8 ? scales[at] : 1.0f;
        if (a->kind == FP32) NAME(widen)(FP32, src, 1.0f, a->width, dst + i * wide);
        else if (a->kind == BF16) NAME(widen)(BF16, src, 1.0f, a->width, dst + i * wide);
        else NAME(widen)(INT8, src, scale, a->width, dst + i * wide);
    }
}

INLINE V NAME(load_kind)(int kind, const char *p, long i) {
    return kind == FP32 ? NAME(load)((const float *)p + i)
        : kind == BF16 ? NAME(load_half)((const uint16_t *)p + i) : NAME(load_byte)((const int8_t *)p + i);
}

/* Asks for the key or value of one head at a position: heads lie too far apart for the processor to foresee them. */
INLINE void NAME(ask)(const Attend *a, const Sequence *q, const char *base, long head, long p) {
    long size = a->width * size_of(a->kind), slot = (long)q->table[p / BLOCK] * BLOCK + p % BLOCK;
    for (long line = 0; line < size; line += 64) __builtin_prefetch(base + (slot * a->kv_heads + head) * size + line);
}

/* Where keys or values of one head lie, in place or, widened, in a tile, and the scale of each; as fetch otherwise. */
INLINE void NAME(find)(int tiled, const Attend *a, const Sequence *q, const char *base, const float *scales, long head,
                       long from, long n, long stop, long wide, float *tile, const char **rows, float *by) {
    long size = a->width * size_of(a->kind), i = 0;
    if (tiled) NAME(fetch)(a, q, base, scales, head, from, n, stop, wide, tile);
    for (; i < n; i++) {
        long p = from + i, at = ((long)q->table[p / BLOCK] * BLOCK + p % BLOCK) * a->kv_heads + head;
        rows[i] = tiled ? (const char *)(tile + i * wide) : base + at * size;
        by[i] = a->kind == INT8 && !tiled ? scales[at] : 1.0f;
    }
    for (; i % 4; i++) rows[i] = rows[n - 1], by[i] = 1.0f; /* their scores are not kept */
}

/* Scores of four keys with each of n query heads. */
INLINE void NAME(score)(int kind, int n, const float *asked, long wide, const char **rows, long room, float *out) {
    V sum[2][4], u[4];
    for (int g = 0; g < n; g++)
        for (int j = 0; j < 4; j++) sum[g][j] = NAME(all)(0.0f);
    for (long d = 0; d < wide; d += LANES) {
        for (int j = 0; j < 4; j++) u[j] = NAME(load_kind)(kind, rows[j], d);
        for (int g = 0; g < n; g++) {
            V v = NAME(load)(asked + g * wide + d);
            for (int j = 0; j < 4; j++) sum[g][j] += u[j] * v;
        }
    }
    for (int g = 0; g < n; g++) NAME(sum4)(sum[g], out + g * room);
}

/* Adds `count` values, weighed by the scores of n query heads, to what was found for each; sums stay in registers. */
INLINE void NAME(mix)(int kind, int n, const char **rows, const float *scores, long room, long count, long wide,
                      float *found) {
    long d = 0;
    for (; d + 4 * LANES <= wide; d += 4 * LANES) {
        V acc[2][4];
        for (int g = 0; g < n; g++)
            for (int j = 0; j < 4; j++) acc[g][j] = NAME(load)(found + g * wide + d + j * LANES);
        for (long i = 0; i < count; i++)
            for (int j = 0; j < 4; j++) {
                V v = NAME(load_kind)(kind, rows[i], d + j * LANES);
                for (int g = 0; g < n; g++) acc[g][j] += v * scores[g * room + i];
            }
        for (int g = 0; g < n; g++)
            for (int j = 0; j < 4; j++) NAME(store)(found + g * wide + d + j * LANES, acc[g][j]);
    }
    for (; d < wide; d += LANES)
        for (int g = 0; g < n; g++) {
            V acc = NAME(load)(found + g * wide + d);
            for (long i = 0; i < count; i++) acc += NAME(load_kind)(kind, rows[i], d) * scores[g * room + i];
            NAME(store)(found + g * wide + d, acc);
        }
}

/* One row of the pass and one key head: every query head of its group. `kind` is that of keys and values where they are
 * read: fp32 where they are tiled, which heads of odd widths and many queries a key are. */
INLINE void NAME(attend_row)(int kind, int tiled, const Attend *a, const Sequence *q, long row, long head,
                             float *scratch) {
    long group = a->heads / a->kv_heads, wide = ROUND_UP(a->width), at = q->start + row, g;
    long from = a->window && at + 1 > a->window ? at + 1 - a->window : 0, n = at + 1 - from, room = ROUND_UP(n);
    float *tile = scratch, *asked = tile + TILE * wide, *found = asked + group * wide, *scores = found + group * wide;
    const char *rows[TILE];
    float by[TILE];
    for (g = 0; g < group; g++) {
        long place = ((q->begin + row) * a->heads + head * group + g) * a->width;
        NAME(widen)(a->q_kind, (const char *)a->q + place * size_of(a->q_kind), 1.0f, a->width, asked + g * wide);
        for (long d = 0; d < wide; d += LANES) {
            NAME(store)(asked + g * wide + d, NAME(load)(asked + g * wide + d) * a->scale);
            NAME(store)(found + g * wide + d, NAME(all)(0.0f));
        }
    }
    for (long p = 0; p < n; p += TILE) {
        long here = n - p < TILE ? n - p : TILE;
        NAME(find)(tiled, a, q, a->keys, a->key_scales, head, from + p, here, from + n, wide, tile, rows, by);
        for (long i = 0; i < here; i += 4) {
            for (g = 0; g + 2 <= group; g += 2)
                NAME(score)(kind, 2, asked + g * wide, wide, rows + i, room, scores + g * room + p + i);
            if (g < group) NAME(score)(kind, 1, asked + g * wide, wide, rows + i, room, scores + g * room + p + i);
            if (tiled) continue;
            for (long t = p + i + TILE; t < p + i + TILE + 4 && t < 2 * n; t++)
                NAME(ask)(a, q, t < n ? a->keys : a->values, head, from + (t < n ? t : t - n));
        }
        if (kind == INT8 || a->cap)
            for (g = 0; g < group; g++)
                for (long i = 0; i < here; i++) {
                    float *s = scores + g * room + p + i;
                    *s *= by[i];
                    if (a->cap) *s = a->cap * tanhf(*s / a->cap);
                }
    }
    for (g = 0; g < group; g++) {
        float whole = 1.0f / NAME(weigh)(scores + g * room, n);
        for (long i = 0; i < room; i += LANES)
            NAME(store)(scores + g * room + i, NAME(load)(scores + g * room + i) * whole);
    }
    for (long p = 0; p < n; p += TILE) {
        long here = n - p < TILE ? n - p : TILE;
        NAME(find)(tiled, a, q, a->values, a->value_scales, head, from + p, here, from + n, wide, tile, rows, by);
        if (kind == INT8)
            for (g = 0; g < group; g++)
                for (long i = 0; i < here; i++) scores[g * room + p + i] *= by[i];
        for (long i = 0; i < here; i += 8) {
            long some = here - i < 8 ? here - i : 8;
            for (g = 0; g + 2 <= group; g += 2)
                NAME(mix)(kind, 2, rows + i, scores + g * room + p + i, room, some, wide, found + g * wide);
            if (g < group) NAME(mix)(kind, 1, rows + i, scores + g * room + p + i, room, some, wide, found + g * wide);
            if (tiled) continue;
            for (long t = p + i + TILE; t < p + i + TILE + 8 && t < n; t++)
                NAME(ask)(a, q, a->values, head, from + t);
        }
    }
    for (g = 0; g < group; g++) {
        long place = ((q->begin + row) * a->heads + head * group + g) * a->width;
        NAME(narrow)(a->q_kind, found + g * wide, a->width, (char *)a->out + place * size_of(a->q_kind));
    }
}

#define WIDE (4 * LANES)

/* out[j][lane] += left[i][lane] * right[i * step + j] for `count` i; four j at a time, so that 16 sums stay in registers. */
INLINE void NAME(outer)(const float *left, const float *right, long step, long count, int columns, float *out) {
    V acc[4][4];
    for (int j = 0; j < columns; j++)
        for (int v = 0; v < 4; v++) acc[j][v] = NAME(load)(out + j * WIDE + v * LANES);
    for (long i = 0; i < count; i++) {
        V l[4];
        for (int v = 0; v < 4; v++) l[v] = NAME(load)(left + i * WIDE + v * LANES);
        for (int j = 0; j < columns; j++)
            for (int v = 0; v < 4; v++) acc[j][v] += l[v] * right[i * step + j];
    }
    for (int j = 0; j < columns; j++)
        for (int v = 0; v < 4; v++) NAME(store)(out + j * WIDE + v * LANES, acc[j][v]);
}

/* scores[p][lane] = sum over d of asked[d][lane] * tile[p][d], four positions at a time. */
INLINE void NAME(inner)(const float *asked, const float *tile, long wide, long depth, int rows, float *out) {
    V acc[4][4];
    for (int j = 0; j < rows; j++)
        for (int v = 0; v < 4; v++) acc[j][v] = NAME(all)(0.0f);
    for (long d = 0; d < depth; d++) {
        V l[4];
        for (int v = 0; v < 4; v++) l[v] = NAME(load)(asked + d * WIDE + v * LANES);
        for (int j = 0; j < rows; j++)
            for (int v = 0; v < 4; v++) acc[j][v] += l[v] * tile[j * wide + d];
    }
    for (int j = 0; j < rows; j++)
        for (int v = 0; v < 4; v++) NAME(store)(out + j * WIDE + v * LANES, acc[j][v]);
}

/* Rows first to last of the pass and one key head. A lane is a query: nothing is ever added across lanes. */
static void NAME(attend_rows)(const Attend *a, const Sequence *q, long first, long last, long head, float *scratch) {
    long group = a->heads / a->kv_heads, wide = ROUND_UP(a->width), lanes = (last - first) * group;
    long end = q->start + last, from = q->start + first + 1 - a->window;
    from = a->window && from > 0 ? from : 0;
    long n = end - from;
    float *tile = scratch, *asked = tile + TILE * wide, *found = asked + wide * WIDE, *scores = found + wide * WIDE;
    I limit[4];
    for (long l = 0; l < WIDE; l++) {
        long mine = l < lanes ? l : 0, row = first + mine / group;
        long place = ((q->begin + row) * a->heads + head * group + mine % group) * a->width;
        ((int32_t *)limit)[l] = (int32_t)(q->start + row - from);
        for (long d = 0; d < a->width; d++)
            asked[d * WIDE + l] = one(a->q_kind, (const char *)a->q + place * size_of(a->q_kind), d) * a->scale;
    }
    for (long p = 0; p < n; p += TILE) {
        long here = n - p < TILE ? n - p : TILE, i = 0;
        NAME(fetch)(a, q, a->keys, a->key_scales, head, from + p, here, from + n, wide, tile);
        for (; i + 4 <= here; i += 4)
            NAME(inner)(asked, tile + i * wide, wide, a->width, 4, scores + (p + i) * WIDE);
        for (; i < here; i++) NAME(inner)(asked, tile + i * wide, wide, a->width, 1, scores + (p + i) * WIDE);
    }
    long sure = q->start + first - from + 1; /* keys before it are seen by every row, but for a window */
    V peak[4], sum[4];
    for (int v = 0; v < 4; v++) peak[v] = NAME(all)(-INFINITY), sum[v] = NAME(all)(0.0f);
    for (long p = 0; p < n; p++)
        for (int v = 0; v < 4; v++) {
            float *s = scores + p * WIDE + v * LANES;
            V x = NAME(load)(s);
            if (a->cap)
                for (int l = 0; l < LANES; l++) x[l] = a->cap * tanhf(x[l] / a->cap);
            if (a->window || p >= sure) {
                I place = (I){0} + (int32_t)p, unseen = place > limit[v];
                if (a->window) unseen |= place <= limit[v] - (int32_t)a->window;
                x = (V)(((I)x & ~unseen) | ((I)NAME(all)(-INFINITY) & unseen));
            }
            if (a->cap || a->window || p >= sure) NAME(store)(s, x);
            peak[v] = NAME(larger)(peak[v], x);
        }
    for (long p = 0; p < n; p++)
        for (int v = 0; v < 4; v++) {
            float *s = scores + p * WIDE + v * LANES;
            V e = NAME(exp)(NAME(load)(s) - peak[v]);
            sum[v] += e;
            NAME(store)(s, e);
        }
    memset(found, 0, wide * WIDE * sizeof(float));
    for (long p = 0; p < n; p += TILE) {
        long here = n - p < TILE ? n - p : TILE;
        NAME(fetch)(a, q, a->values, a->value_scales, head, from + p, here, from + n, wide, tile);
        for (long d = 0; d < wide; d += 4) NAME(outer)(scores + p * WIDE, tile + d, wide, here, 4, found + d * WIDE);
    }
    for (long d = 0; d < a->width; d++)
        for (int v = 0; v < 4; v++) {
            float *f = found + d * WIDE + v * LANES;
            NAME(store)(f, NAME(load)(f) / sum[v]);
        }
    for (long l = 0; l < lanes; l++) {
        long place = ((q->begin + first + l / group) * a->heads + head * group + l % group) * a->width;
        for (long d = 0; d < a->width; d++) put(a->q_kind, a->out, place + d, found[d * WIDE + l]);
    }
}

static void NAME(attend)(const void *task, long item, float *scratch) {
    const Attend *a = task;
    long head = item % a->kv_heads, piece = item / a->kv_heads;
    const Piece *p = a->pieces + piece;
    const Sequence *q = a->sequences + p->sequence;
    if (p->last - p->first == 1 || a->heads / a->kv_heads > WIDE)
        for (long row = p->first; row < p->last; row++) {
            if (a->width % LANES || a->heads / a->kv_heads > 4) NAME(attend_row)(FP32, 1, a, q, row, head, scratch);
            else if (a->kind == FP32) NAME(attend_row)(FP32, 0, a, q, row, head, scratch);
            else if (a->kind == BF16) NAME(attend_row)(BF16, 0, a, q, row, head, scratch);
            else NAME(attend_row)(INT8, 0, a, q, row, head, scratch);
        }
    else NAME(attend_rows)(a, q, p->first, p->last, head, scratch);
}

/* Root mean square norm of rows; x + add is written back to x first where there is an add. */
static void NAME(norm)(const void *task, long item, float *scratch) {
    const Norm *a = task;
    long wide = ROUND_UP(a->width);
    float *x = scratch, *y = x + wide;
    for (long row = item * a->step; row < (item + 1) * a->step && row < a->rows; row++) {
        char *place = (char *)a->x + row * a->width * size_of(a->kind);
        NAME(widen)(a->kind, place, 1.0f, a->width, x);
        if (a->add) {
            NAME(widen)(a->kind, (const char *)a->add + row * a->width * size_of(a->kind), 1.0f, a->width, y);
            for (long i = 0; i < wide; i += LANES) NAME(store)(x + i, NAME(load)(x + i) + NAME(load)(y + i));
            NAME(narrow)(a->kind, x, a->width, place);
            NAME(widen)(a->kind, place, 1.0f, a->width, x);
        }
        V sum = NAME(all)(0.0f);
        for (long i = 0; i < wide; i += LANES) sum += NAME(load)(x + i) * NAME(load)(x + i);
        float by = 1.0f / sqrtf(NAME(sum)(sum) / a->width + a->epsilon);
        NAME(widen)(a->weight_kind, a->weight, 1.0f, a->width, y);
        for (long i = 0; i < wide; i += LANES) NAME(store)(x + i, NAME(load)(x + i) * by * NAME(load)(y + i));
        NAME(narrow)(a->kind, x, a->width, (char *)a->out + row * a->width * size_of(a->kind));
    }
}

/* act(first half of a row) * second half, act(x) = x * sigmoid(x), or of 1.5957691 (x + 0.044715 x^3): gelu by tanh. */
static void NAME(gate)(const void *task, long item, float *scratch) {
    const Gate *a = task;
    long wide = ROUND_UP(a->width), size = size_of(a->kind);
    float *x = scratch, *y = x + wide;
    for (long row = item * a->step; row < (item + 1) * a->step && row < a->rows; row++) {
        const char *place = (const char *)a->x + row * 2 * a->width * size;
        NAME(widen)(a->kind, place, 1.0f, a->width, x);
        NAME(widen)(a->kind, place + a->width * size, 1.0f, a->width, y);
        for (long i = 0; i < wide; i += LANES) {
            V g = NAME(load)(x + i), u = a->gelu ? 1.5957691216057308f * (g + 0.044715f * g * g * g) : g;
            NAME(store)(x + i, g / (1.0f + NAME(exp)(-u)) * NAME(load)(y + i));
        }
        NAME(narrow)(a->kind, x, a->width, (char *)a->out + row * a->width * size);
    }
}

/* Bytes of a head, times the scale that is returned: max |x| / 127, rounded to nearest, ties to even. */
INLINE float NAME(quantise)(const float *x, long n, int8_t *dst) {
    V peak = NAME(all)(0.0f);
    float top = 0.0f;
    for (long i = 0; i < n; i += LANES) peak = NAME(larger)(peak, (V)((I)NAME(load)(x + i) & 0x7fffffff));
    for (int i = 0; i < LANES; i++) top = peak[i] > top ? peak[i] : top;
    float by = top > 0.0f ? 127.0f / top : 1.0f;
    for (long i = 0; i < n; i += LANES) {
        V v = (NAME(load)(x + i) * by + 12582912.0f) - 12582912.0f;
        B b = __builtin_convertvector(__builtin_convertvector(v, I), B);
        memcpy(dst + i, &b, n - i < LANES ? n - i : LANES);
    }
    return top > 0.0f ? top / 127.0f : 1.0f;
}

/* Norms a head where there is a weight, then turns its first `turned` elements; i pairs with i + turned / 2. */
INLINE void NAME(turn)(const Place *a, float *x, float *y, const float *cosine, const float *sine, const void *weight) {
    long wide = ROUND_UP(a->width), pairs = a->turned / 2, i = 0;
    if (weight) {
        V sum = NAME(all)(0.0f);
        for (long d = 0; d < wide; d += LANES) sum += NAME(load)(x + d) * NAME(load)(x + d);
        float by = 1.0f / sqrtf(NAME(sum)(sum) / a->width + a->epsilon);
        NAME(widen)(a->weight_kind, weight, 1.0f, a->width, y);
        for (long d = 0; d < wide; d += LANES) NAME(store)(x + d, NAME(load)(x + d) * by * NAME(load)(y + d));
    }
    for (; i + LANES <= pairs; i += LANES) {
        V p = NAME(load)(x + i), r = NAME(load)(x + pairs + i), c = NAME(load)(cosine + i), s = NAME(load)(sine + i);
        NAME(store)(x + i, p * c - r * s);
        NAME(store)(x + pairs + i, r * c + p * s);
    }
    for (; i < pairs; i++) {
        float p = x[i], r = x[pairs + i];
        x[i] = p * cosine[i] - r * sine[i];
        x[pairs + i] = r * cosine[i] + p * sine[i];
    }
}

/* One row of queries, keys and values: the first are turned and kept, the others stored in the cache. */
static void NAME(place)(const void *task, long item, float *scratch) {
    const Place *a = task;
    float *x = scratch, *y = x + ROUND_UP(a->width);
    long size = size_of(a->kind), heads = a->heads + 2 * a->kv_heads;
    for (long row = item * a->step; row < (item + 1) * a->step && row < a->rows; row++) {
        const char *source = (const char *)a->qkv + row * heads * a->width * size;
        const float *cosine = a->cosine + row * (a->turned / 2), *sine = a->sine + row * (a->turned / 2);
        for (long h = 0; h < heads; h++) {
            NAME(widen)(a->kind, source + h * a->width * size, 1.0f, a->width, x);
            if (h < a->heads) {
                NAME(turn)(a, x, y, cosine, sine, a->q_norm);
                NAME(narrow)(a->kind, x, a->width, (char *)a->q + (row * a->heads + h) * a->width * size);
                continue;
            }
            long key = h < a->heads + a->kv_heads, head = (h - a->heads) % a->kv_heads;
            if (key) NAME(turn)(a, x, y, cosine, sine, a->k_norm);
            long at = a->slots[row] * a->kv_heads + head;
            char *held = (key ? a->keys : a->values) + at * a->width * size_of(a->cache);
            if (a->cache != INT8) {
                NAME(narrow)(a->cache, x, a->width, held);
                continue;
            }
            if (a->kind == BF16) NAME(narrow)(BF16, x, a->width, y), NAME(widen)(BF16, y, 1.0f, a->width, x);
            (key ? a->key_scales : a->value_scales)[at] = NAME(quantise)(x, a->width, (int8_t *)held);
        }
    }
}

static const Kernels NAME(kernels) = {NAME(linear),
#ifdef __AVX512BF16__
                                      NAME(panels), NAME(attend), NAME(norm), NAME(gate), NAME(place), LANES, 2 * LANES};
#else
                                      NULL, NAME(attend), NAME(norm), NAME(gate), NAME(place), LANES, LANES};
#endif

#undef V
#undef I
#undef U
#undef H
#undef B
#undef ROUND_UP
#undef EACH_M
#undef CASE
#undef AHEAD
#undef WIDE
