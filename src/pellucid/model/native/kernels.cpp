// What one token at a time spends its time in, on CPUs: products with matrices that are read once from memory.
//
// Plain C++ with the vector types of GCC and Clang, so that one source serves AVX-512, AVX2 and NEON; OpenMP for
// threads. No header of torch or Python: it compiles in under a second. Every number is accumulated in float32,
// in an order that depends neither on the number of threads nor on how many rows come together, so a row's result is
// the same to the bit alone and in a batch.

#include <cmath>
#include <cstdint>
#include <cstring>

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
static inline Words widen(Halves x) { return __builtin_convertvector(x, Words); }
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
struct F16 {  // the exponent moves by a product, which also makes subnormal numbers normal ones
    using Stored = uint16_t;
    static Floats read(const uint16_t *p) {
        Words bits = widen(load<Halves>(p));
        Floats size = (Floats)((bits & 0x7fff) << 13) * 0x1p112f;
        return (Floats)((Words)size | ((bits & 0x8000) << 16));
    }
};

// y[m, i] = Σ_j x[m, j] w[i, j] for R rows of the matrix and M rows of x: what is read once serves R · M products.
template <class Format, int R, int M>
static inline void tile(const typename Format::Stored *w, const float *x, float *y, int64_t n, int64_t k) {
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
        for (int m = 0; m < M; m++) y[m * n + r] = sum(total[r][m]);
}

template <class Format, int R>
static inline void rows(const typename Format::Stored *w, const float *x, float *y, int64_t m, int64_t n, int64_t k) {
    for (; m >= 4; m -= 4, x += 4 * k, y += 4 * n) tile<Format, R, 4>(w, x, y, n, k);
    for (; m >= 1; m -= 1, x += k, y += n) tile<Format, R, 1>(w, x, y, n, k);
}

template <class Format> static void dense(const void *weight, const float *x, float *y, int64_t m, int64_t n, int64_t k) {
    auto *w = static_cast<const typename Format::Stored *>(weight);
    int64_t tiles = n / 4;
#pragma omp parallel for schedule(static) if (n * k > 20000)
    for (int64_t t = 0; t < tiles; t++) rows<Format, 4>(w + 4 * t * k, x, y + 4 * t, m, n, k);
    for (int64_t i = 4 * tiles; i < n; i++) rows<Format, 1>(w + i * k, x, y + i, m, n, k);
}

// Quantised matrices lie in panels of 16 rows, a row in each lane. A group is 32 columns of a panel: 16 scales in
// fp16, then words that hold 4 columns in 8 bits or 8 columns in 4 bits, the first in the lowest bits, signed.
template <int BITS> struct Panel {
    static constexpr int PER_WORD = 32 / BITS;
    static constexpr int64_t BYTES = 2 * LANES + GROUP * LANES * BITS / 8;
    static Floats column(Ints words, int c) {
        return floats((words << (32 - BITS - BITS * c)) >> (32 - BITS));
    }
};

template <int BITS, int M>
static inline void panel(const uint8_t *w, const float *x, float *y, int64_t n, int64_t k, int64_t wanted) {
    using P = Panel<BITS>;
    Floats total[M] = {};
    for (int64_t j = 0; j < k; j += GROUP, w += P::BYTES) {
        Floats part[M][2] = {};  // two chains of sums, since each waits for its last
#pragma GCC unroll 8
        for (int64_t c = 0; c < GROUP; c += P::PER_WORD) {
            const uint8_t *p = w + 2 * LANES + c / P::PER_WORD * 64;
            __builtin_prefetch(p + 2048);
            Ints words = load<Ints>(p);
#pragma GCC unroll 8
            for (int i = 0; i < P::PER_WORD; i++) {
                Floats weights = P::column(words, i);
#pragma GCC unroll 8
                for (int m = 0; m < M; m++) part[m][i & 1] += weights * x[m * k + j + c + i];
            }
        }
        Floats scale = F16::read(reinterpret_cast<const uint16_t *>(w));
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) total[m] += (part[m][0] + part[m][1]) * scale;
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) memcpy(y + m * n, &total[m], wanted * sizeof(float));
}

template <int BITS>
static void quantised(const void *weight, const float *x, float *y, int64_t m, int64_t n, int64_t k) {
    auto *w = static_cast<const uint8_t *>(weight);
    int64_t panels = (n + LANES - 1) / LANES, bytes = k / GROUP * Panel<BITS>::BYTES;
#pragma omp parallel for schedule(static) if (n * k > 20000)
    for (int64_t p = 0; p < panels; p++) {
        int64_t wanted = n - LANES * p < LANES ? n - LANES * p : LANES, done = 0;
        const uint8_t *from = w + p * bytes;
        float *to = y + LANES * p;
        for (; m - done >= 4; done += 4) panel<BITS, 4>(from, x + done * k, to + done * n, n, k, wanted);
        for (; m - done >= 1; done += 1) panel<BITS, 1>(from, x + done * k, to + done * n, n, k, wanted);
    }
}

// The matrix [n, k] that panels stand for, row after row, in float32 or rounded to bf16.
static inline void store(float *to, float value) { *to = value; }
static inline void store(uint16_t *to, float value) {  // to the nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    *to = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

template <int BITS, class Number> static void unpack(const uint8_t *w, Number *y, int64_t n, int64_t k) {
    using P = Panel<BITS>;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < n; first += LANES) {
        const uint8_t *from = w + first / LANES * (k / GROUP) * P::BYTES;
        for (int64_t j = 0; j < k; j += GROUP, from += P::BYTES) {
            Floats scale = F16::read(reinterpret_cast<const uint16_t *>(from)), column[GROUP];
            for (int c = 0; c < GROUP; c++)
                column[c] = P::column(load<Ints>(from + 2 * LANES + c / P::PER_WORD * 64), c % P::PER_WORD) * scale;
            for (int64_t row = first; row < n && row < first + LANES; row++)
                for (int c = 0; c < GROUP; c++) store(y + row * k + j + c, column[c][row - first]);
        }
    }
}

// Single-query attention: y = Σ_s softmax_s(cap(q·k_s · scale) + bias_s) v_s, for each query head.
template <class Format>
static void attend(const float *q, const typename Format::Stored *keys, const typename Format::Stored *values,
                   const uint8_t *seen, const float *bias, float *scores, float *y, int64_t batch, int64_t heads,
                   int64_t kv_heads, int64_t length, int64_t e, int64_t row_stride, int64_t head_stride,
                   int64_t seen_stride, int64_t bias_stride, float scale, float softcap) {
    int64_t group = heads / kv_heads;
#pragma omp parallel for collapse(2) schedule(static) if (batch * heads * length * e > 100000)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < heads; h++) {
            auto *k = keys + b * row_stride + h / group * head_stride;
            auto *v = values + b * row_stride + h / group * head_stride;
            const float *query = q + (b * heads + h) * e;
            float *score = scores + (b * heads + h) * length, *out = y + (b * heads + h) * e;
            float largest = -INFINITY;
            for (int64_t s = 0; s < length; s++) {
                Floats dot = {};
                for (int64_t i = 0; i < e; i += LANES) dot += load<Floats>(query + i) * Format::read(k + s * e + i);
                float z = sum(dot) * scale;
                if (softcap > 0) z = softcap * tanhf(z / softcap);
                if (bias) z += bias[b * bias_stride + h * length + s];
                if (seen && !seen[b * seen_stride + s]) z = -INFINITY;
                score[s] = z;
                if (!(z <= largest)) largest = z;  // so that NaN goes on
            }
            memset(out, 0, e * sizeof(float));
            if (largest == -INFINITY) continue;  // it sees nothing
            float weight = 0;
            for (int64_t s = 0; s < length; s++) weight += score[s] = expf(score[s] - largest);
            for (int64_t i = 0; i < e; i += LANES) {
                Floats mixed = {};
                for (int64_t s = 0; s < length; s++) mixed += Format::read(v + s * e + i) * score[s];
                mixed /= weight;
                memcpy(out + i, &mixed, sizeof mixed);
            }
        }
}

extern "C" {

enum Formats { FLOAT32, BFLOAT16, FLOAT16, INT8, INT4 };

// y [m, n] = x [m, k] · wᵀ. k is a multiple of 16, for quantised matrices of 32.
void linear(int format, const void *w, const float *x, float *y, int64_t m, int64_t n, int64_t k) {
    switch (format) {
        case FLOAT32: return dense<F32>(w, x, y, m, n, k);
        case BFLOAT16: return dense<BF16>(w, x, y, m, n, k);
        case FLOAT16: return dense<F16>(w, x, y, m, n, k);
        case INT8: return quantised<8>(w, x, y, m, n, k);
        case INT4: return quantised<4>(w, x, y, m, n, k);
    }
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
        attend<decltype(read)>(q, static_cast<const Stored *>(keys), static_cast<const Stored *>(values), seen, bias,
                               scores, y, batch, heads, kv_heads, length, e, row_stride, head_stride, seen_stride,
                               bias_stride, scale, softcap);
    };
    if (format == FLOAT32) run(F32{});
    if (format == BFLOAT16) run(BF16{});
    if (format == FLOAT16) run(F16{});
}

// y = x / sqrt(mean(x²) + eps) · gain, for rows of d numbers; d is a multiple of 16.
void rms_norm(const float *x, const float *gain, float *y, int64_t rows, int64_t d, float eps) {
    for (int64_t r = 0; r < rows; r++, x += d, y += d) {
        Floats squares = {};
        for (int64_t i = 0; i < d; i += LANES) squares += load<Floats>(x + i) * load<Floats>(x + i);
        float factor = 1 / sqrtf(sum(squares) / d + eps);
        for (int64_t i = 0; i < d; i++) y[i] = x[i] * factor * gain[i];
    }
}
}
