// Products of small matrices that lie in cache: C [M, N] = A [M, K] B [K, N], or added to C.
//
// A is any strided matrix, so also a transposed one; the rows of B and C are padded to whole
// vectors. A tile of C stays in registers while k runs.
#pragma once

#include "vector.h"

struct Strided {
    const float* data;
    int64_t row, column;  // steps from one row, and from one column, to the next
};

// The most rows of a tile that is V vectors wide. More than 6 are no faster, and longer to compile.
template <int V>
constexpr int kTallest = kAccumulators / V < 6 ? kAccumulators / V : 6;

// The most vectors of a tile.
constexpr int kWidest = kAccumulators >= 24 ? 5 : 3;

// Inlined by force: arguments that go through memory cost every tile a tenth of its time.
template <int R, int V, typename Finish>
static inline __attribute__((always_inline)) void multiply_tile(
    Strided a, const float* b, int64_t b_row, int64_t depth, int64_t row, int64_t column,
    const Finish& finish) {
    Vec tile[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) tile[r][v] = Vec{};
    for (int64_t k = 0; k < depth; k++) {
        Vec factors[V];
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) {
            factors[v] = load(b + k * b_row + v * kLanes);
            hold(factors[v]);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const Vec factor = splat(a.data[r * a.row + k * a.column]);
#pragma GCC unroll 16
            for (int v = 0; v < V; v++) tile[r][v] += factor * factors[v];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) finish(row + r, column, tile[r]);
}

// a number of tiles of the same height, one below the other
template <int R, int V, typename Finish>
static void multiply_tiles(
    int64_t height, int64_t tiles, Strided a, const float* b, int64_t b_row, int64_t depth,
    int64_t row, int64_t column, const Finish& finish) {
    if constexpr (R > 1)
        if (height < R)
            return multiply_tiles<R - 1, V>(
                height, tiles, a, b, b_row, depth, row, column, finish);
    for (; tiles > 0; tiles--, a.data += R * a.row, row += R)
        multiply_tile<R, V>(a, b, b_row, depth, row, column, finish);
}

template <int V, typename Finish>
static void multiply_panel(
    int64_t vectors, Strided a, const float* b, int64_t b_row, int64_t rows, int64_t depth,
    int64_t column, const Finish& finish) {
    if constexpr (V > 1)
        if (vectors < V)
            return multiply_panel<V - 1>(vectors, a, b, b_row, rows, depth, column, finish);
    if (rows == 0) return;
    // tiles of nearly the same height: a flat one would wait for its own sums
    constexpr int R = kTallest<V>;
    const int64_t tiles = (rows + R - 1) / R, height = rows / tiles, taller = rows % tiles;
    multiply_tiles<R, V>(height + 1, taller, a, b, b_row, depth, 0, column, finish);
    const int64_t done = taller * (height + 1);
    a.data += done * a.row;
    multiply_tiles<R, V>(height, tiles - taller, a, b, b_row, depth, done, column, finish);
}

// calls finish(row, column, vectors) with an array of vectors, which are C from there on
template <typename Finish>
static void multiply_into(
    Strided a, const float* b, int64_t b_row, int64_t rows, int64_t columns, int64_t depth,
    const Finish& finish) {
    const int64_t vectors = columns / kLanes;
    const int64_t panels = (vectors + kWidest - 1) / kWidest;
    for (int64_t panel = 0; panel < panels; panel++) {
        // panels of nearly the same width
        const int64_t first = panel * vectors / panels, last = (panel + 1) * vectors / panels;
        multiply_panel<kWidest>(
            last - first, a, b + first * kLanes, b_row, rows, depth, first * kLanes, finish);
    }
}

template <bool kAdd>
static void multiply(
    Strided a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t rows,
    int64_t columns, int64_t depth) {
    multiply_into(
        a, b, b_row, rows, columns, depth, [=](int64_t row, int64_t column, const auto& values) {
            float* to = c + row * c_row + column;
            for (const Vec& value : values) {
                // added at the end: a sum of sums of some rows each rounds less than one long sum
                store(to, kAdd ? load(to) + value : value);
                to += kLanes;
            }
        });
}
