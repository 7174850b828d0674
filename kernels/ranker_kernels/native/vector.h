// A vector of the widest registers that the compiler was told of, and what is computed with it.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kAccumulators = 24;  // registers for the tile of a product; 32 in all
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

static inline int64_t round_up(int64_t width) { return (width + kLanes - 1) / kLanes * kLanes; }

static inline Vec splat(float value) { return value - Vec{}; }

static inline Vec load(const float* from) {
    Vec value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

static inline void store(float* to, Vec value) { std::memcpy(to, &value, sizeof value); }

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
template <int N = kLanes>
static inline float sum(typename Lanes<N>::Type value) {
    if constexpr (N == 2) {
        return value[0] + value[1];
    } else {
        typename Lanes<N / 2>::Type low, high;
        std::memcpy(&low, &value, sizeof low);
        std::memcpy(&high, reinterpret_cast<const char*>(&value) + sizeof low, sizeof high);
        return sum<N / 2>(low + high);
    }
}

// exp(x), within 2 units of the last place between -87 and 88; beyond, the value at the bound.
// NaN stays NaN.
static inline Vec exp(Vec x) {
    const Vec low = splat(-87.0f), high = splat(88.0f);
    x = x < low ? low : x;
    x = x > high ? high : x;
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

static inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }
