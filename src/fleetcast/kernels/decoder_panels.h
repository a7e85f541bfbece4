/* Products with bf16 weights in oneDNN's layout, on the processor's products of pairs (AVX512-BF16): panels of 64 outputs,
 * of each panel pairs of inputs one after the other, of each pair 64 outputs with both their weights. Memory is read once
 * and from one end to the other however many rows there are; a lane is an output, so nothing is added across lanes.
 */

/* Pairs that stay near until all rows have met them, 8 KB; memory is asked for as far ahead. Rows that registers hold. */
enum { PAIRS = 32, EARLY = 8192, AT_ONCE = 6 };

/* Adds `pairs` pairs of inputs of m rows times a panel to the sums, 64 a row. */
INLINE void panel(int m, const uint16_t *w, const uint16_t *x, long stride, long pairs, float *sums) {
    __m512 acc[AT_ONCE][4];
_Pragma("GCC unroll 6")
    for (int r = 0; r < m; r++)
        for (int j = 0; j < 4; j++) acc[r][j] = _mm512_loadu_ps(sums + 64 * r + 16 * j);
    for (long i = 0; i < pairs; i++, w += 128) {
        __m512bh u[4];
        for (int j = 0; j < 4; j++) {
            __builtin_prefetch((const char *)(w + 32 * j) + EARLY);
            u[j] = (__m512bh)_mm512_loadu_si512(w + 32 * j);
        }
_Pragma("GCC unroll 6")
        for (int r = 0; r < m; r++) {
            int32_t both;
            memcpy(&both, x + r * stride + 2 * i, sizeof both);
            for (int j = 0; j < 4; j++) acc[r][j] = _mm512_dpbf16_ps(acc[r][j], u[j], (__m512bh)_mm512_set1_epi32(both));
        }
    }
_Pragma("GCC unroll 6")
    for (int r = 0; r < m; r++)
        for (int j = 0; j < 4; j++) _mm512_storeu_ps(sums + 64 * r + 16 * j, acc[r][j]);
}

/* As panel, of any number of rows, in groups as alike as can be. */
static void panel_rows(long m, const uint16_t *w, const uint16_t *x, long stride, long pairs, float *sums) {
    long groups = (m + AT_ONCE - 1) / AT_ONCE, each = (m + groups - 1) / groups;
    for (long row = 0; row < m; row += each)
        switch (m - row < each ? m - row : each) {
#define CASE(m) case m: panel(m, w, x + row * stride, stride, pairs, sums + row * 64); break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#undef CASE
        }
}
