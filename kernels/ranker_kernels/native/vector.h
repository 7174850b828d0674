// A vector of the widest registers that the compiler was told of, and what is computed with it.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kAccumulators = 25;  // registers for the tile of a product; 32 in all
#elif defined(__AVX__)
constexpr int kLanes = 8;
constexpr int kAccumulators = 12;  // 16 in all
#elif defined(__aarch64__)
constexpr int kLanes = 4;
constexpr int kAccumulators = 24;
#else
constexpr int kLanes = 4;
constexpr int kAccumulators = 8;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntVec __attribute__((vector_size(4 * kLanes)));

// Memory that begins on a cache line: a vector that crosses two of them is loaded twice.
template <typename T>
struct LineAllocator {
    using value_type = T;
    static constexpr std::align_val_t kLine{64};
    LineAllocator() = default;
    template <typename U>
    LineAllocator(const LineAllocator<U>&) {}
    T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), kLine)); }
    void deallocate(T* memory, size_t) { ::operator delete(memory, kLine); }
    bool operator==(const LineAllocator&) const { return true; }
    bool operator!=(const LineAllocator&) const { return false; }
};

using Floats = std::vector<float, LineAllocator<float>>;

// The same without zeros, so that no thread writes what others are going to write.
struct FreeLines {
    void operator()(float* memory) const { LineAllocator<float>().deallocate(memory, 0); }
};
using RawFloats = std::unique_ptr<float[], FreeLines>;
static inline RawFloats raw_floats(int64_t count) {
    return RawFloats(LineAllocator<float>().allocate(count));
}

static inline int64_t round_up(int64_t width) { return (width + kLanes - 1) / kLanes * kLanes; }

static inline Vec splat(float value) { return value - Vec{}; }

static inline Vec load(const float* from) {
    Vec value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

static inline void store(float* to, Vec value) { std::memcpy(to, &value, sizeof value); }

// Copies a row of a table. The library's copy takes as long to begin as a row that is so short.
static inline void copy_row(const float* from, float* to, int64_t width) {
    int64_t d = 0;
    for (; d + kLanes <= width; d += kLanes) store(to + d, load(from + d));
    // that loop is slow to begin too, also for nothing
    if (d == width) return;
    for (; d < width; d++) to[d] = from[d];
}

// Makes the compiler hold a value in a register, where it would rather load it again at each use.
static inline void hold(Vec& value) {
#if defined(__AVX__)
    asm("" : "+v"(value));
#elif defined(__SSE2__)
    asm("" : "+x"(value));
#elif defined(__aarch64__)
    asm("" : "+w"(value));
#endif
}

template <int N>
struct Lanes {
    typedef float Type __attribute__((vector_size(4 * N)));
};

// halves are added until one number is left
template <int N>
static inline float sum_halves(typename Lanes<N>::Type value) {
    if constexpr (N == 2) {
        return value[0] + value[1];
    } else {
        typename Lanes<N / 2>::Type low, high;
        std::memcpy(&low, &value, sizeof low);
        std::memcpy(&high, reinterpret_cast<const char*>(&value) + sizeof low, sizeof high);
        return sum_halves<N / 2>(low + high);
    }
}

static inline float sum(Vec value) {
    // what is taken apart would lie in memory all along the loop that adds it up
    hold(value);
    return sum_halves<kLanes>(value);
}

// the products of rows [rows, width] with a vector [width]
static inline void dot_rows(
    const float* values, const float* with, int64_t width, int64_t rows, float* to) {
    for (int64_t r = 0; r < rows; r++) {
        Vec total{};
        for (int64_t v = 0; v < width; v += kLanes)
            total += load(values + r * width + v) * load(with + v);
        to[r] = sum(total);
    }
}

// x between two bounds; NaN stays NaN
static inline Vec clamp(Vec x, float low, float high) {
    const Vec least = splat(low), most = splat(high);
#if defined(__AVX__)
    // of NaN and a number these return the second, which is the first in this notation
    asm("vmaxps %1, %2, %0" : "=v"(x) : "v"(x), "v"(least));
    asm("vminps %1, %2, %0" : "=v"(x) : "v"(x), "v"(most));
#else
    x = x < least ? least : x;
    x = x > most ? most : x;
#endif
    return x;
}

// exp(x), within 2 units of the last place between -87 and 88; beyond, the value at the bound.
// NaN stays NaN.
static inline Vec exp(Vec x) {
    x = clamp(x, -87.0f, 88.0f);
    // adding 1.5 * 2^23 rounds to the nearest integer n and leaves it in the lowest bits
    const Vec shifted = x * 1.44269504f + 12582912.0f;
    const Vec n = shifted - 12582912.0f;
    // r = x - n ln 2 with ln 2 in two parts, |r| < 0.35; then Cephes' polynomial
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    IntVec bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    Vec scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

// x becomes 1 / (1 + exp(-x)), off by at most 1e-7 of 1; NaN stays NaN. Two vectors step by step
// take as long as one and a half: the processor does not look far enough ahead to do so by itself.
template <int N>
static inline void sigmoid(Vec (&x)[N]) {
    Vec power[N], f[N], p[N], scale[N];
    const auto each = [](auto step) {
#pragma GCC unroll 4
        for (int i = 0; i < N; i++) step(i);
    };
    // exp(-x) = 2^(n + f) as in exp, but with the exponent's bias among the lowest bits
    each([&](int i) { x[i] = clamp(x[i], -87.0f, 87.0f); });
    each([&](int i) { power[i] = x[i] * -1.44269504f + 12583039.0f; });
    each([&](int i) { f[i] = x[i] * -1.44269504f - (power[i] - 12583039.0f); });
    // minimax on -0.5..0.5 with exp2(0) = 1: 9.4e-8 off
    each([&](int i) { p[i] = f[i] * 1.326940721e-3f + 9.671294130e-3f; });
    each([&](int i) { p[i] = p[i] * f[i] + 5.550711229e-2f; });
    each([&](int i) { p[i] = p[i] * f[i] + 2.402224690e-1f; });
    each([&](int i) { p[i] = p[i] * f[i] + 6.931470037e-1f; });
    each([&](int i) { p[i] = p[i] * f[i] + 1.0f; });
    each([&](int i) {
        IntVec bits;
        std::memcpy(&bits, &power[i], sizeof bits);
        bits <<= 23;
        std::memcpy(&scale[i], &bits, sizeof bits);
    });
    each([&](int i) { x[i] = 1.0f / (p[i] * scale[i] + 1.0f); });
}
