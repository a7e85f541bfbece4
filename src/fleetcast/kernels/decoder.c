/* What a decoder's step reads most, where torch's own kernels leave a factor: products of few rows with weights of any
 * format, attention over a paged cache without gathering it, and the small steps between.
 *
 * Plain C with GNU vectors; decoder_body.h is compiled once for each instruction set and the widest one that the machine
 * has is taken. Work is shared out on torch's own threads: a second pool beside it would fight for the cores.
 */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if !defined(__GNUC__) || defined(_WIN32)
#error "needs GNU vectors and dlsym; without this module torch's own kernels run"
#endif

#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline, unused))

enum { FP32, BF16, INT8, INT4 };
enum { BLOCK = 16, GROUP = 32, TILE = 32 };

typedef struct {
    int kind, out_kind;
    const float *x, *bias;
    const uint16_t *half;
    const void *weight, *scale;
    void *out;
    long m, n, k, stride, row_bytes, step;
} Linear;

typedef struct {
    const int32_t *table;
    long start, begin;
} Sequence;

typedef struct {
    long sequence, first, last;
} Piece;

typedef struct {
    int q_kind, kind;
    const void *q;
    void *out;
    const char *keys, *values;
    const float *key_scales, *value_scales;
    const Sequence *sequences;
    const Piece *pieces;
    long heads, kv_heads, width, window;
    float scale, cap;
} Attend;

typedef struct {
    int kind, weight_kind;
    void *x;
    const void *add, *weight;
    void *out;
    long rows, width, step;
    float epsilon;
} Norm;

typedef struct {
    int kind, gelu;
    const void *x;
    void *out;
    long rows, width, step;
} Gate;

typedef struct {
    int kind, cache, weight_kind;
    const void *qkv, *q_norm, *k_norm;
    const float *cosine, *sine;
    void *q;
    char *keys, *values;
    float *key_scales, *value_scales;
    const int64_t *slots;
    long rows, heads, kv_heads, width, turned, step;
    float epsilon;
} Place;

typedef void (*Step)(const void *task, long item, float *scratch);

typedef struct {
    Step linear, panels, attend, norm, gate, place; /* panels: NULL where there are no products of pairs */
    int lanes, products; /* floats of a register; elements that one multiplies at once, more for bf16 */
} Kernels;

INLINE long size_of(int kind) { return kind == FP32 ? 4 : kind == BF16 ? 2 : 1; }

INLINE float from_half(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

INLINE uint16_t half(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return f != f ? 0x7fc0 : (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

INLINE float one(int kind, const void *p, long i) {
    return kind == FP32 ? ((const float *)p)[i] : kind == BF16 ? from_half(((const uint16_t *)p)[i]) : ((const int8_t *)p)[i];
}

INLINE void put(int kind, void *p, long i, float x) {
    if (kind == FP32) ((float *)p)[i] = x;
    else ((uint16_t *)p)[i] = half(x);
}

#define JOIN(a, b) a##_##b
#define EXPAND(a, b) JOIN(a, b)
#define NAME(x) EXPAND(x, SUFFIX)

#define SUFFIX base
#define LANES 4
#include "decoder_body.h"
#undef SUFFIX
#undef LANES

#if defined(__x86_64__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi2")
#define SUFFIX avx2
#define LANES 8
#include "decoder_body.h"
#undef SUFFIX
#undef LANES
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2")
#define SUFFIX avx512
#define LANES 16
#include "decoder_body.h"
#undef SUFFIX
#undef LANES
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2")
#define SUFFIX avx512bf16
#define LANES 16
#include "decoder_panels.h"
#include "decoder_body.h"
#undef SUFFIX
#undef LANES
#pragma GCC pop_options
#endif

static const Kernels *kernels = &kernels_base;

static void choose(int most) {
    kernels = &kernels_base;
#if defined(__x86_64__) && !defined(__clang__)
    __builtin_cpu_init();
    if (most >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) kernels = &kernels_avx2;
    if (most >= 16 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        kernels = &kernels_avx512;
    if (most >= 32 && kernels == &kernels_avx512 && __builtin_cpu_supports("avx512bf16")) kernels = &kernels_avx512bf16;
#endif
}

typedef struct {
    Step step;
    const void *task;
    long items, next, floats;
    int failed;
} Crew;

static void work(void *data) {
    Crew *c = data;
    float *scratch = NULL;
    if (c->floats && posix_memalign((void **)&scratch, 64, c->floats * sizeof(float))) {
        __atomic_store_n(&c->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    for (long i; (i = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED)) < c->items;) c->step(c->task, i, scratch);
    free(scratch);
}

typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);

/* Runs the items on torch's OpenMP threads, first come first served; alone where there is no such runtime. */
static PyObject *run(Step step, const void *task, long items, long floats, long threads) {
    static Parallel parallel;
    Crew c = {step, task, items, 0, floats, 0};
    if (!parallel) parallel = (Parallel)dlsym(RTLD_DEFAULT, "GOMP_parallel");
    if (threads > items) threads = items;
    Py_BEGIN_ALLOW_THREADS
    if (threads > 1 && parallel) parallel(work, &c, (unsigned)threads, 0);
    else work(&c);
    Py_END_ALLOW_THREADS
    if (c.failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static int numbers(PyObject *const *args, Py_ssize_t given, long long *out, int wanted) {
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "takes %d numbers, not %zd", wanted, given);
        return 0;
    }
    for (int i = 0; i < wanted; i++) {
        out[i] = PyLong_AsLongLong(args[i]);
        if (out[i] == -1 && PyErr_Occurred()) return 0;
    }
    return 1;
}

#define P(i) ((void *)(intptr_t)v[i])
#define MOST(n) (((n) + 15) / 16 * 16)

static PyObject *py_linear(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    long long v[11];
    (void)self;
    if (!numbers(args, given, v, 11)) return NULL;
    int kind = (int)v[0], x_kind = (int)v[1];
    long m = v[2], n = v[3], k = v[4];
    long row_bytes = kind == FP32 ? 4 * k : kind == BF16 ? 2 * k : kind == INT8 ? k : k / 2;
    /* runs of memory long enough to be foreseen, short enough that threads end together */
    long step = (128 << 10) / (row_bytes + 1) + 1, share = n / (8 * v[10]) + 1;
    step = step < share ? step : share;
    /* rows of x an odd number of cache lines apart, since rows of 4 KB would share their sets of the cache */
    long stride = (k + 63) / 64 * 64 + (kind == BF16 ? 32 : 16);
    /* bf16 rows stay so where the processor multiplies them as they are */
    int as_is = kind == BF16 && x_kind == BF16 && kernels->products == 32;
    void *x;
    if (posix_memalign(&x, 64, m * stride * sizeof(float))) return PyErr_NoMemory();
    for (long r = 0; r < m; r++) {
        const char *row = (const char *)P(5) + r * k * size_of(x_kind);
        if (as_is) memcpy((uint16_t *)x + r * stride, row, k * 2);
        else if (x_kind == FP32) memcpy((float *)x + r * stride, row, k * 4);
        else
            for (long i = 0; i < k; i++) ((float *)x)[r * stride + i] = from_half(((const uint16_t *)row)[i]);
    }
    Linear a = {kind, x_kind, as_is ? NULL : x, P(8), as_is ? x : NULL, P(6), P(7), P(9), m, n, k, stride, row_bytes, step};
    PyObject *done = run(kernels->linear, &a, (n + step - 1) / step, 0, v[10]);
    free(x);
    return done;
}

/* bf16 rows times bf16 weights in panels of 64 outputs, `row_bytes` each; rows of x end in a zero where inputs are odd. */
static PyObject *py_panels(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    long long v[9];
    (void)self;
    if (!numbers(args, given, v, 9)) return NULL;
    if (!kernels->panels) return PyErr_Format(PyExc_RuntimeError, "no products of pairs of bf16 here");
    long m = v[0], n = v[1], k = v[2], stride = (k + 63) / 64 * 64 + 32;
    uint16_t *x;
    if (!m) Py_RETURN_NONE; /* a piece of a prompt that asks for no logits */
    if (posix_memalign((void **)&x, 64, m * stride * sizeof *x)) return PyErr_NoMemory();
    for (long r = 0; r < m; r++) {
        memcpy(x + r * stride, (const uint16_t *)P(4) + r * k, k * sizeof *x);
        x[r * stride + k] = 0;
    }
    Linear a = {BF16, BF16, NULL, P(6), x, P(5), NULL, P(7), m, n, k, stride, v[3], 64};
    PyObject *done = run(kernels->panels, &a, (n + 63) / 64, 64 * m, v[8]);
    free(x);
    return done;
}

static PyObject *py_attend(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    long long v[17];
    (void)self;
    if (given != 19) return PyErr_Format(PyExc_TypeError, "takes 19 numbers, not %zd", given);
    double scale = PyFloat_AsDouble(args[17]), cap = PyFloat_AsDouble(args[18]);
    if (PyErr_Occurred() || !numbers(args, 17, v, 17)) return NULL;
    const int32_t *tables = P(8);
    const int64_t *spans = P(10); /* (count, 3): first row of the pass, rows, position of the first */
    long most = v[9], count = v[11], group = v[12] / v[13], lanes = 4 * kernels->lanes;
    long each = group > lanes ? 1 : lanes / group, pieces = 0, longest = 0, i = 0;
    for (long s = 0; s < count; s++) pieces += (spans[3 * s + 1] + each - 1) / each;
    Sequence *sequences = malloc(count * sizeof *sequences + pieces * sizeof(Piece));
    if (!sequences) return PyErr_NoMemory();
    Piece *list = (Piece *)(sequences + count);
    for (long s = 0; s < count; s++) {
        long rows = spans[3 * s + 1], start = spans[3 * s + 2];
        sequences[s] = (Sequence){tables + s * most, start, spans[3 * s]};
        longest = start + rows > longest ? start + rows : longest;
        /* the last rows see most: begun first, so that threads end together */
        for (long end = rows; end > 0; end -= each) list[i++] = (Piece){s, end > each ? end - each : 0, end};
    }
    Attend a = {(int)v[0], (int)v[1], P(2), P(3), P(4), P(5), P(6), P(7), sequences, list, v[12], v[13], v[14], v[15],
                (float)scale, (float)cap};
    long wide = MOST(a.width), kept = MOST(longest), across = lanes + group;
    PyObject *done = run(kernels->attend, &a, pieces * a.kv_heads, TILE * wide + across * (2 * wide + kept), v[16]);
    free(sequences);
    return done;
}

static long step_of(long rows, long width) {
    long step = 8192 / (width + 1) + 1; /* rows worth handing to a thread */
    return rows < step ? rows : step;
}

static PyObject *py_norm(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    long long v[9];
    (void)self;
    if (given != 10) return PyErr_Format(PyExc_TypeError, "takes 10 numbers, not %zd", given);
    double epsilon = PyFloat_AsDouble(args[9]);
    if (PyErr_Occurred() || !numbers(args, 9, v, 9)) return NULL;
    Norm a = {(int)v[0], (int)v[1], P(2), P(3), P(4), P(5), v[6], v[7], step_of(v[6], v[7]), (float)epsilon};
    return run(kernels->norm, &a, a.rows ? (a.rows + a.step - 1) / a.step : 0, 2 * MOST(a.width), v[8]);
}

static PyObject *py_gate(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    long long v[7];
    (void)self;
    if (!numbers(args, given, v, 7)) return NULL;
    Gate a = {(int)v[0], (int)v[1], P(2), P(3), v[4], v[5], step_of(v[4], v[5])};
    return run(kernels->gate, &a, a.rows ? (a.rows + a.step - 1) / a.step : 0, 2 * MOST(a.width), v[6]);
}

static PyObject *py_place(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    long long v[20];
    (void)self;
    if (given != 21) return PyErr_Format(PyExc_TypeError, "takes 21 numbers, not %zd", given);
    double epsilon = PyFloat_AsDouble(args[20]);
    if (PyErr_Occurred() || !numbers(args, 20, v, 20)) return NULL;
    Place a = {(int)v[0], (int)v[1], (int)v[2], P(3), P(4), P(5), P(6), P(7), P(8), P(9), P(10), P(11), P(12), P(13),
               v[14], v[15], v[16], v[17], v[18], step_of(v[14], (v[15] + 2 * v[16]) * v[17]), (float)epsilon};
    return run(kernels->place, &a, a.rows ? (a.rows + a.step - 1) / a.step : 0, 2 * MOST(a.width), v[19]);
}

/* Asks for huge pages under a tensor that stays: a stream of weights crosses fewer of them. A wish, so no error. */
static PyObject *py_settle(PyObject *self, PyObject *const *args, Py_ssize_t given) {
    long long v[2];
    (void)self;
    if (!numbers(args, given, v, 2)) return NULL;
#ifdef MADV_HUGEPAGE
    intptr_t page = 2 << 20, from = (v[0] + page - 1) / page * page, end = (v[0] + v[1]) / page * page;
    Py_BEGIN_ALLOW_THREADS
    if (end > from) {
        madvise((void *)from, end - from, MADV_HUGEPAGE);
        madvise((void *)from, end - from, 25 /* MADV_COLLAPSE, since Linux 6.1 */);
    }
    Py_END_ALLOW_THREADS
#endif
    Py_RETURN_NONE;
}

static PyObject *py_lanes(PyObject *self, PyObject *most) {
    long wanted = PyLong_AsLong(most);
    (void)self;
    if (wanted == -1 && PyErr_Occurred()) return NULL;
    choose((int)wanted);
    return PyLong_FromLong(kernels->products);
}

static PyObject *py_pairs(PyObject *self, PyObject *none) {
    (void)self, (void)none;
    return PyBool_FromLong(kernels->panels != NULL);
}

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, NULL}

static PyMethodDef methods[] = {METHOD(linear), METHOD(panels), METHOD(attend), METHOD(norm), METHOD(gate), METHOD(place), METHOD(settle),
                                {"lanes", py_lanes, METH_O, NULL}, {"pairs", py_pairs, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "decoder", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_decoder(void) {
    choose(32);
    return PyModule_Create(&module);
}
