// What one token at a time spends its time in, on CPUs: products with matrices that are read once from memory.
//
// Plain C++ with the vector types of GCC and Clang, so that one source serves AVX-512, AVX2 and NEON; OpenMP for
// threads. No header of torch or Python: it compiles in under a second. Every number is accumulated in float32,
// in an order that depends neither on the number of threads nor on how many rows come together, so a row's result is
// the same to the bit alone and in a batch.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

using Floats = float __attribute__((vector_size(64)));     // 16 numbers
using Words = uint32_t __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));
using Halves = uint16_t __attribute__((vector_size(32)));

static constexpr int64_t LANES = 16, GROUP = 32;

template <class T> static inline T load(const void *from) {
    T value;
    memcpy(&value, from, sizeof value);
    return value;
}
static inline float sum(Floats x) {
    using Four = float __attribute__((vector_size(16)));
    Four part[4];
    memcpy(part, &x, sizeof x);
    Four all = (part[0] + part[1]) + (part[2] + part[3]);
    return (all[0] + all[2]) + (all[1] + all[3]);
}
static inline Words widen(Halves x) {
#if defined(__AVX512F__)  // one instruction, where GCC 12 writes six
    return (Words)_mm512_cvtepu16_epi32((__m256i)x);
#endif
    return __builtin_convertvector(x, Words);
}
static inline Floats floats(Ints x) { return __builtin_convertvector(x, Floats); }

// How 16 numbers are read from a matrix of each format, as float32.
struct F32 {
    using Stored = float;
    static Floats read(const float *p) { return load<Floats>(p); }
};
struct BF16 {
    using Stored = uint16_t;
    static Floats read(const uint16_t *p) { return (Floats)(widen(load<Halves>(p)) << 16); }
};
struct F16 {
    using Stored = uint16_t;
    static Floats read(const uint16_t *p) {
#if defined(__AVX512F__)
        return (Floats)_mm512_cvtph_ps((__m256i)load<Halves>(p));
#endif
        // The exponent moves by a product, which also makes subnormal numbers normal ones.
        Words bits = widen(load<Halves>(p));
        Floats size = (Floats)((bits & 0x7fff) << 13) * 0x1p112f;
        return (Floats)((Words)size | ((bits & 0x8000) << 16));
    }
};

// A matrix w [n, k], and what is added to its products: n numbers, or null.
struct Matrix {
    const void *numbers;
    const float *bias;
    int64_t format, n, k;
};

static inline void put(float *y, float value, const float *bias, bool adds) {
    if (bias) value += *bias;
    *y = adds ? *y + value : value;
}

// y[m, i] (+)= Σ_j x[m, j] w[i, j] for R rows of the matrix and M rows of x: what is read once serves R · M products.
template <class Format, int R, int M>
static inline void tile(const typename Format::Stored *w, const float *bias, const float *x, float *y, int64_t n,
                        int64_t k, bool adds) {
    Floats total[R][M] = {};
    for (int64_t j = 0; j < k; j += LANES) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const typename Format::Stored *p = w + r * k + j;
            __builtin_prefetch(p + R * k);
            Floats weights = Format::read(p);
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) total[r][m] += weights * load<Floats>(x + m * k + j);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) put(y + m * n + r, sum(total[r][m]), bias ? bias + r : nullptr, adds);
}

template <class Format, int R>
static inline void rows(const Matrix &w, int64_t first, const float *x, float *y, int64_t m, bool adds) {
    int64_t n = w.n, k = w.k;
    auto *numbers = static_cast<const typename Format::Stored *>(w.numbers) + first * k;
    const float *bias = w.bias ? w.bias + first : nullptr;
    for (y += first; m >= 4; m -= 4, x += 4 * k, y += 4 * n) tile<Format, R, 4>(numbers, bias, x, y, n, k, adds);
    for (; m >= 1; m -= 1, x += k, y += n) tile<Format, R, 1>(numbers, bias, x, y, n, k, adds);
}

template <class Format> static void dense(const Matrix &w, const float *x, float *y, int64_t m, bool adds) {
    int64_t tiles = (w.n + 3) / 4;
#pragma omp for schedule(static) nowait
    for (int64_t t = 0; t < tiles; t++) {
        if (4 * t + 4 <= w.n)
            rows<Format, 4>(w, 4 * t, x, y, m, adds);
        else
            for (int64_t i = 4 * t; i < w.n; i++) rows<Format, 1>(w, i, x, y, m, adds);
    }
}

// Quantised matrices lie in panels of 16 rows, a row in each lane. A group is 32 columns of a panel: 16 scales in
// fp16, then words that hold 4 columns in 8 bits or 8 columns in 4 bits, the first in the lowest bits, signed.
template <int BITS> struct Panel {
    static constexpr int PER_WORD = 32 / BITS;
    static constexpr int64_t BYTES = 2 * LANES + GROUP * LANES * BITS / 8;
    static Floats column(const uint8_t *group, int c) {
        Words words = load<Words>(group + 2 * LANES + 4 * LANES * (c / PER_WORD));
        int lowest = BITS * (c % PER_WORD);
#if defined(__AVX512F__)
        if (BITS == 4) {  // by a table, which is looked up by the lowest 4 bits alone
            const Floats table = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};
            return (Floats)_mm512_permutexvar_ps((__m512i)(words >> lowest), (__m512)table);
        }
#endif
        return floats((Ints)(words << (32 - BITS - lowest)) >> (32 - BITS));
    }
};

template <int BITS, int M>
static inline void panel(const uint8_t *w, const float *bias, const float *x, float *y, int64_t n, int64_t k,
                         int64_t wanted, bool adds) {
    Floats total[M] = {};
    for (int64_t j = 0; j < k; j += GROUP, w += Panel<BITS>::BYTES) {
        Floats part[M][2] = {};  // two chains of sums, since each waits for its last
#pragma GCC unroll 32
        for (int c = 0; c < GROUP; c++) {
            if (c % Panel<BITS>::PER_WORD == 0) __builtin_prefetch(w + 2048 + c * LANES * BITS / 8);
            Floats weights = Panel<BITS>::column(w, c);
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) part[m][c & 1] += weights * x[m * k + j + c];
        }
        Floats scale = F16::read(reinterpret_cast<const uint16_t *>(w));
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) total[m] += (part[m][0] + part[m][1]) * scale;
    }
    for (int m = 0; m < M; m++)
        for (int64_t r = 0; r < wanted; r++) put(y + m * n + r, total[m][r], bias ? bias + r : nullptr, adds);
}

template <int BITS> static void quantised(const Matrix &w, const float *x, float *y, int64_t m, bool adds) {
    int64_t n = w.n, k = w.k, panels = (n + LANES - 1) / LANES, bytes = k / GROUP * Panel<BITS>::BYTES;
#pragma omp for schedule(static) nowait
    for (int64_t p = 0; p < panels; p++) {
        int64_t first = LANES * p, wanted = n - first < LANES ? n - first : LANES, done = 0;
        auto *from = static_cast<const uint8_t *>(w.numbers) + p * bytes;
        const float *bias = w.bias ? w.bias + first : nullptr;
        float *to = y + first;
        for (; m - done >= 4; done += 4) panel<BITS, 4>(from, bias, x + done * k, to + done * n, n, k, wanted, adds);
        for (; m - done >= 1; done += 1) panel<BITS, 1>(from, bias, x + done * k, to + done * n, n, k, wanted, adds);
    }
}

enum Formats { FLOAT32, BFLOAT16, FLOAT16, INT8, INT4 };

// y [m, n] (+)= x [m, k] · wᵀ + bias, shared out among the threads of a parallel region; none waits for the others.
static void multiply(const Matrix &w, const float *x, float *y, int64_t m, bool adds = false) {
    switch (w.format) {
        case FLOAT32: return dense<F32>(w, x, y, m, adds);
        case BFLOAT16: return dense<BF16>(w, x, y, m, adds);
        case FLOAT16: return dense<F16>(w, x, y, m, adds);
        case INT8: return quantised<8>(w, x, y, m, adds);
        case INT4: return quantised<4>(w, x, y, m, adds);
    }
}

// The matrix [n, k] that panels stand for, row after row, in float32 or rounded to bf16.
static inline void store(float *to, float value) { *to = value; }
static inline void store(uint16_t *to, float value) {  // to the nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    *to = value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

template <int BITS, class Number> static void unpack(const uint8_t *w, Number *y, int64_t n, int64_t k) {
    using P = Panel<BITS>;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < n; first += LANES) {
        const uint8_t *from = w + first / LANES * (k / GROUP) * P::BYTES;
        for (int64_t j = 0; j < k; j += GROUP, from += P::BYTES) {
            Floats scale = F16::read(reinterpret_cast<const uint16_t *>(from)), column[GROUP];
            for (int c = 0; c < GROUP; c++) column[c] = P::column(from, c) * scale;
            for (int64_t row = first; row < n && row < first + LANES; row++)
                for (int c = 0; c < GROUP; c++) store(y + row * k + j + c, column[c][row - first]);
        }
    }
}

static inline Floats all(float value) { return Floats{} + value; }

// e^x in each lane, to two units in the last place; 0 below -87.  Source: Cephes' expf (Moshier 1989).
static inline Floats exponential(Floats x) {
    Floats bounded = x > all(88) ? all(88) : x;
    Floats whole = (bounded * 1.44269504f + 12582912.0f) - 12582912.0f;  // the nearest whole power of 2
    Floats r = bounded - whole * 0.693359375f - whole * -2.12194440e-4f;
    Floats y = all(1.9875691500e-4f);
    for (float term : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        y = y * r + term;
    y = y * r * r + r + 1.0f;
    Ints power = (__builtin_convertvector(whole, Ints) + 127) << 23;
    return x < all(-87) ? all(0) : y * (Floats)power;
}

static constexpr int64_t AHEAD = 8;  // keys: memory is asked for them that much before they are read

// score[s] = q·k_s for each key.
template <class Format>
static inline void dots(const float *q, const typename Format::Stored *k, float *score, int64_t length, int64_t e) {
    int64_t s = 0;
    for (; s + 4 <= length; s += 4) {
        Floats dot[4] = {};
        for (int64_t i = 0; i < e; i += LANES) {
            Floats part = load<Floats>(q + i);
#pragma GCC unroll 4
            for (int u = 0; u < 4; u++) {
                const typename Format::Stored *p = k + (s + u) * e + i;
                __builtin_prefetch(p + AHEAD * e);
                dot[u] += part * Format::read(p);
            }
        }
#pragma GCC unroll 4
        for (int u = 0; u < 4; u++) score[s + u] = sum(dot[u]);
    }
    for (; s < length; s++) {
        Floats dot = {};
        for (int64_t i = 0; i < e; i += LANES) dot += load<Floats>(q + i) * Format::read(k + s * e + i);
        score[s] = sum(dot);
    }
}

// y = Σ_s score[s] v_s / weight, for N · 16 of the numbers of a head.
template <class Format, int N>
static inline void mix(const float *score, const typename Format::Stored *v, float *y, int64_t length, int64_t e,
                       float weight) {
    Floats mixed[N] = {};
    for (int64_t s = 0; s < length; s++)
#pragma GCC unroll 4
        for (int i = 0; i < N; i++) {
            const typename Format::Stored *p = v + s * e + i * LANES;
            __builtin_prefetch(p + AHEAD * e);
            mixed[i] += Format::read(p) * score[s];
        }
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
        mixed[i] /= weight;
        memcpy(y + i * LANES, &mixed[i], sizeof mixed[i]);
    }
}

// Attention of one query head: y = Σ_s softmax_s(cap(q·k_s · scale) + bias_s) v_s. seen and bias may be null.
template <class Format>
static void attend_head(const float *q, const typename Format::Stored *k, const typename Format::Stored *v,
                        const uint8_t *seen, const float *bias, float *score, float *y, int64_t length, int64_t e,
                        float scale, float softcap) {
    dots<Format>(q, k, score, length, e);
    float largest = -INFINITY;
    for (int64_t s = 0; s < length; s++) {
        float z = score[s] * scale;
        if (softcap > 0) z = softcap * tanhf(z / softcap);
        if (bias) z += bias[s];
        if (seen && !seen[s]) z = -INFINITY;
        score[s] = z;
        if (!(z <= largest)) largest = z;  // so that NaN goes on
    }
    memset(y, 0, e * sizeof(float));
    if (largest == -INFINITY) return;  // it sees nothing
    Floats weights = {};
    for (int64_t s = 0; s < length; s += LANES) {
        int64_t bytes = (length - s < LANES ? length - s : LANES) * sizeof(float);
        Floats part = all(-INFINITY);
        memcpy(&part, score + s, bytes);
        part = exponential(part - largest);
        weights += part;
        memcpy(score + s, &part, bytes);
    }
    float weight = sum(weights);
    int64_t i = 0;
    for (; i + 4 * LANES <= e; i += 4 * LANES) mix<Format, 4>(score, v + i, y + i, length, e, weight);
    for (; i < e; i += LANES) mix<Format, 1>(score, v + i, y + i, length, e, weight);
}

// Norms of vectors of d numbers; d is a multiple of 16.
enum NormKinds { NO_NORM, RMS_NORM, LAYER_NORM };

struct Norm {
    const float *gain, *bias;  // bias may be null
    int64_t kind;
    double eps;
};

static void normalise_one(const Norm &norm, const float *x, float *y, int64_t d) {
    if (norm.kind == NO_NORM) {
        if (y != x) memcpy(y, x, d * sizeof(float));
        return;
    }
    Floats all = {}, squares = {};
    float mean = 0;
    if (norm.kind == LAYER_NORM) {
        for (int64_t i = 0; i < d; i += LANES) all += load<Floats>(x + i);
        mean = sum(all) / d;
    }
    for (int64_t i = 0; i < d; i += LANES) {
        Floats from_mean = load<Floats>(x + i) - mean;
        squares += from_mean * from_mean;
    }
    float factor = 1 / sqrtf(sum(squares) / d + static_cast<float>(norm.eps));
    for (int64_t i = 0; i < d; i++) y[i] = (x[i] - mean) * factor * norm.gain[i] + (norm.bias ? norm.bias[i] : 0);
}

static void normalise(const Norm &norm, const float *x, float *y, int64_t m, int64_t d) {
#pragma omp for schedule(static)
    for (int64_t r = 0; r < m; r++) normalise_one(norm, x + r * d, y + r * d, d);
}

// All blocks of a decoder, for one new position of each of m rows.
enum Activations { SILU, GELU, GELU_TANH, RELU, RELU2 };

struct Layer {
    Norm attention_norm, query_norm, key_norm, attention_out_norm;
    Norm cross_norm, cross_query_norm, cross_out_norm, feed_norm, feed_out_norm;
    Matrix query, key, value, output, cross_query, cross_output;  // without numbers: no source is read
    Matrix gate, up, down;  // gate without numbers: an MLP that has none
    int64_t activation;
    double scale, softcap;
};

struct Blocks {
    const Layer *layers;
    int64_t num_layers, rows, d, heads, kv_heads, e, d_ff;
    void *keys, *values;  // [layers, rows, kv_heads, max_length, e]
    int64_t cache_format, max_length, length;  // length: of what is cached before
    const float *cosines, *sines;  // of `turning` features of a head, each row's own or the same for all (stride 0)
    int64_t turning, angle_stride;
    const uint8_t *const *seen;  // of every layer [rows or 1, length + 1], or null
    const float *bias;  // [rows or 1, heads, length + 1], or null
    int64_t seen_stride, bias_stride;
    const void *source_keys, *source_values;  // [layers, rows, kv_heads, source_length, e]
    const uint8_t *source_seen;  // [rows or 1, source_length], or null
    int64_t source_length, source_seen_stride;
    float *x, *scratch;  // x [rows, d] becomes the result
};

static inline float activate(int64_t kind, float x) {
    switch (kind) {
        case GELU: return 0.5f * x * (1 + erff(x * 0.70710678f));
        case GELU_TANH: return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
        case RELU: return x > 0 ? x : x != x ? x : 0;
        default: return x > 0 ? x * x : x != x ? x : 0;
    }
}

// up = activation(gate) · up, or without a gate activation(up), for 16 numbers.
static inline void activate_lanes(int64_t kind, const float *gate, float *up) {
    Floats in = load<Floats>(gate ? gate : up), out;
    if (kind == SILU)
        out = in / (exponential(-in) + 1.0f);
    else
        for (int i = 0; i < LANES; i++) out[i] = activate(kind, in[i]);
    if (gate) out *= load<Floats>(up);
    memcpy(up, &out, sizeof out);
}

static inline void rotate(float *head, const float *cosine, const float *sine, int64_t turning) {
    int64_t half = turning / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = head[i], b = head[i + half];
        head[i] = a * cosine[i] - b * sine[i];
        head[i + half] = b * cosine[i + half] + a * sine[i + half];
    }
}

// What the blocks write between x and x: every thread cuts it in the same way.
struct Scratch {
    float *h, *q, *k, *v, *mixed, *gate, *up, *scores;
    explicit Scratch(const Blocks &b) {
        float *next = b.scratch;
        auto take = [&](int64_t width) {
            float *taken = next;
            next += b.rows * width;
            return taken;
        };
        h = take(b.d), q = take(b.heads * b.e), k = take(b.kv_heads * b.e), v = take(b.kv_heads * b.e);
        mixed = take(b.heads * b.e), gate = take(b.d_ff), up = take(b.d_ff), scores = take(b.heads * scores_of_a_head(b));
    }
    static int64_t scores_of_a_head(const Blocks &b) {
        return b.max_length > b.source_length ? b.max_length : b.source_length;
    }
};

// Turn the new keys and queries, write keys and values into the cache, attend.
template <class Format> static void attend_cached(const Blocks &b, const Layer &layer, int64_t number, Scratch s) {
    int64_t group = b.heads / b.kv_heads, e = b.e, now = b.length + 1;
    const uint8_t *seen = b.seen[number];
#pragma omp for collapse(2) schedule(static)
    for (int64_t r = 0; r < b.rows; r++)
        for (int64_t kv = 0; kv < b.kv_heads; kv++) {
            int64_t from = ((number * b.rows + r) * b.kv_heads + kv) * b.max_length * e;
            auto *keys = static_cast<typename Format::Stored *>(b.keys) + from;
            auto *values = static_cast<typename Format::Stored *>(b.values) + from;
            const float *cosine = b.cosines + r * b.angle_stride, *sine = b.sines + r * b.angle_stride;
            float *key = s.k + (r * b.kv_heads + kv) * e, *value = s.v + (r * b.kv_heads + kv) * e;
            normalise_one(layer.key_norm, key, key, e);
            rotate(key, cosine, sine, b.turning);
            for (int64_t i = 0; i < e; i++) {
                store(keys + b.length * e + i, key[i]);
                store(values + b.length * e + i, value[i]);
            }
            for (int64_t head = kv * group; head < (kv + 1) * group; head++) {
                int64_t place = r * b.heads + head;
                float *query = s.q + place * e;
                normalise_one(layer.query_norm, query, query, e);
                rotate(query, cosine, sine, b.turning);
                attend_head<Format>(query, keys, values, seen ? seen + r * b.seen_stride : nullptr,
                                    b.bias ? b.bias + r * b.bias_stride + head * now : nullptr,
                                    s.scores + place * Scratch::scores_of_a_head(b), s.mixed + place * e, now, e, layer.scale,
                                    layer.softcap);
            }
        }
}

// Attend to the source, whose keys and values are there since before the first position.
template <class Format> static void attend_source(const Blocks &b, const Layer &layer, int64_t number, Scratch s) {
    int64_t group = b.heads / b.kv_heads, e = b.e;
#pragma omp for collapse(2) schedule(static)
    for (int64_t r = 0; r < b.rows; r++)
        for (int64_t head = 0; head < b.heads; head++) {
            int64_t from = ((number * b.rows + r) * b.kv_heads + head / group) * b.source_length * e;
            int64_t place = r * b.heads + head;
            normalise_one(layer.cross_query_norm, s.q + place * e, s.q + place * e, e);
            attend_head<Format>(s.q + place * e, static_cast<const typename Format::Stored *>(b.source_keys) + from,
                                static_cast<const typename Format::Stored *>(b.source_values) + from,
                                b.source_seen ? b.source_seen + r * b.source_seen_stride : nullptr, nullptr,
                                s.scores + place * Scratch::scores_of_a_head(b), s.mixed + place * e,
                                b.source_length, e, layer.scale, layer.softcap);
        }
}

// x += norm(in · wᵀ + bias): the end of a branch.
static void leave(const Blocks &b, const Matrix &w, const Norm &norm, const float *in, float *y) {
    if (norm.kind == NO_NORM) {
        multiply(w, in, b.x, b.rows, true);
#pragma omp barrier
        return;
    }
    multiply(w, in, y, b.rows);
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t r = 0; r < b.rows; r++) {
        normalise_one(norm, y + r * b.d, y + r * b.d, b.d);
        for (int64_t i = 0; i < b.d; i++) b.x[r * b.d + i] += y[r * b.d + i];
    }
}

static void run_block(const Blocks &b, int64_t number) {
    const Layer &layer = b.layers[number];
    Scratch s(b);
    normalise(layer.attention_norm, b.x, s.h, b.rows, b.d);
    multiply(layer.query, s.h, s.q, b.rows);
    multiply(layer.key, s.h, s.k, b.rows);
    multiply(layer.value, s.h, s.v, b.rows);
#pragma omp barrier
    if (b.cache_format == FLOAT32)
        attend_cached<F32>(b, layer, number, s);
    else
        attend_cached<BF16>(b, layer, number, s);
    leave(b, layer.output, layer.attention_out_norm, s.mixed, s.h);
    if (layer.cross_query.numbers) {
        normalise(layer.cross_norm, b.x, s.h, b.rows, b.d);
        multiply(layer.cross_query, s.h, s.q, b.rows);
#pragma omp barrier
        if (b.cache_format == FLOAT32)
            attend_source<F32>(b, layer, number, s);
        else
            attend_source<BF16>(b, layer, number, s);
        leave(b, layer.cross_output, layer.cross_out_norm, s.mixed, s.h);
    }
    normalise(layer.feed_norm, b.x, s.h, b.rows, b.d);
    if (layer.gate.numbers) multiply(layer.gate, s.h, s.gate, b.rows);
    multiply(layer.up, s.h, s.up, b.rows);
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t i = 0; i < b.rows * layer.up.n; i += LANES)
        activate_lanes(layer.activation, layer.gate.numbers ? s.gate + i : nullptr, s.up + i);
    leave(b, layer.down, layer.feed_out_norm, s.up, s.h);
}

extern "C" {

// y [m, n] = x [m, k] · wᵀ. k is a multiple of 16, for quantised matrices of 32.
void linear(int format, const void *w, const float *x, float *y, int64_t m, int64_t n, int64_t k) {
    Matrix matrix{w, nullptr, format, n, k};
#pragma omp parallel if (n * k > 20000)
    multiply(matrix, x, y, m);
}

// y [n, k]: the numbers that a quantised matrix stands for, in float32 or bf16.
void unpack_matrix(int format, const void *w, void *y, int is_bf16, int64_t n, int64_t k) {
    auto *from = static_cast<const uint8_t *>(w);
    auto *narrow = static_cast<uint16_t *>(y);
    auto *wide = static_cast<float *>(y);
    if (format == INT8) is_bf16 ? unpack<8>(from, narrow, n, k) : unpack<8>(from, wide, n, k);
    if (format == INT4) is_bf16 ? unpack<4>(from, narrow, n, k) : unpack<4>(from, wide, n, k);
}

// q, y [batch, heads, e]; keys and values [batch, kv_heads, length, e] by strides; scores: room for
// [batch, heads, length]; seen [batch, length] bytes and bias [batch, heads, length] or null. e is a multiple of 16.
void attend_one(int format, const float *q, const void *keys, const void *values, const uint8_t *seen,
                const float *bias, float *scores, float *y, int64_t batch, int64_t heads, int64_t kv_heads,
                int64_t length, int64_t e, int64_t row_stride, int64_t head_stride, int64_t seen_stride,
                int64_t bias_stride, float scale, float softcap) {
    auto run = [&](auto read) {
        using Stored = typename decltype(read)::Stored;
#pragma omp parallel for collapse(2) schedule(static) if (batch * heads * length * e > 100000)
        for (int64_t b = 0; b < batch; b++)
            for (int64_t h = 0; h < heads; h++) {
                int64_t from = b * row_stride + h / (heads / kv_heads) * head_stride, place = b * heads + h;
                attend_head<decltype(read)>(q + place * e, static_cast<const Stored *>(keys) + from,
                                            static_cast<const Stored *>(values) + from,
                                            seen ? seen + b * seen_stride : nullptr,
                                            bias ? bias + b * bias_stride + h * length : nullptr,
                                            scores + place * length, y + place * e, length, e, scale, softcap);
            }
    };
    if (format == FLOAT32) run(F32{});
    if (format == BFLOAT16) run(BF16{});
    if (format == FLOAT16) run(F16{});
}

// y = x / sqrt(mean(x²) + eps) · gain, for rows of d numbers; d is a multiple of 16.
void rms_norm(const float *x, const float *gain, float *y, int64_t rows, int64_t d, float eps) {
    Norm norm{gain, nullptr, RMS_NORM, eps};
    for (int64_t r = 0; r < rows; r++) normalise_one(norm, x + r * d, y + r * d, d);
}

// x becomes what all blocks make of it; what they cache is written at position `length`.
void run_blocks(const Blocks *blocks) {
#pragma omp parallel if (blocks->d * blocks->d_ff > 20000)
    for (int64_t number = 0; number < blocks->num_layers; number++) run_block(*blocks, number);
}
}
