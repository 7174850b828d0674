// Rows of a small matrix become its columns, in registers.
#pragma once

#include <utility>

#include "vector.h"

template <int N>
using Row = typename Lanes<N>::Type;

template <int N>
struct IntLanes {
    typedef int32_t Type __attribute__((vector_size(4 * N)));
    typedef uint32_t Unsigned __attribute__((vector_size(4 * N)));
};

// alternates between two vectors, from the place on
template <int N, int kPlace, int... I>
static inline Row<N> interleave(Row<N> a, Row<N> b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (kPlace + I / 2 + I % 2 * N)...);
#else
    return __builtin_shuffle(a, b, typename IntLanes<N>::Type{(kPlace + I / 2 + I % 2 * N)...});
#endif
}

// Transposes a matrix [N, N]: each round interleaves its upper with its lower half.
template <int N>
static inline void transpose(Row<N>* lines) {
    constexpr auto kAll = std::make_integer_sequence<int, N>();
    for (int round = 1; round < N; round *= 2) {
        Row<N> mixed[N];
#pragma GCC unroll 16
        for (int i = 0; i < N / 2; i++) {
            mixed[2 * i] = interleave<N, 0>(lines[i], lines[i + N / 2], kAll);
            mixed[2 * i + 1] = interleave<N, N / 2>(lines[i], lines[i + N / 2], kAll);
        }
#pragma GCC unroll 16
        for (int i = 0; i < N; i++) lines[i] = mixed[i];
    }
}
