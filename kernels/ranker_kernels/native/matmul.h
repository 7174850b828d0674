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

template <int R, int V, bool kAdd>
static inline void multiply_tile(
    Strided a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t depth) {
    Vec tile[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) tile[r][v] = Vec{};
    for (int64_t k = 0; k < depth; k++) {
        Vec row[V];
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) {
            row[v] = load(b + k * b_row + v * kLanes);
            hold(row[v]);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const Vec factor = splat(a.data[r * a.row + k * a.column]);
#pragma GCC unroll 16
            for (int v = 0; v < V; v++) tile[r][v] += factor * row[v];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) {
            // added at the end: a sum of sums of some rows each rounds less than one long sum
            float* to = c + r * c_row + v * kLanes;
            store(to, kAdd ? load(to) + tile[r][v] : tile[r][v]);
        }
}

// rows in tiles of R, what is left in tiles of half as many
template <int R, int V, bool kAdd>
static void multiply_rows(
    Strided a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t rows, int64_t depth) {
    for (; rows >= R; rows -= R, a.data += R * a.row, c += R * c_row)
        multiply_tile<R, V, kAdd>(a, b, b_row, c, c_row, depth);
    if constexpr (R > 1)
        if (rows > 0) multiply_rows<R / 2, V, kAdd>(a, b, b_row, c, c_row, rows, depth);
}

template <int V, bool kAdd>
static void multiply_panel(
    int64_t vectors, Strided a, const float* b, int64_t b_row, float* c, int64_t c_row,
    int64_t rows, int64_t depth) {
    if constexpr (V > 1)
        if (vectors < V)
            return multiply_panel<V - 1, kAdd>(vectors, a, b, b_row, c, c_row, rows, depth);
    multiply_rows<kAccumulators / V, V, kAdd>(a, b, b_row, c, c_row, rows, depth);
}

template <bool kAdd>
static void multiply(
    Strided a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t rows,
    int64_t columns, int64_t depth) {
    constexpr int kWidest = kAccumulators >= 24 ? 6 : 3;
    const int64_t vectors = columns / kLanes;
    const int64_t panels = (vectors + kWidest - 1) / kWidest;
    for (int64_t panel = 0; panel < panels; panel++) {
        // panels of nearly the same width
        const int64_t first = panel * vectors / panels, last = (panel + 1) * vectors / panels;
        multiply_panel<kWidest, kAdd>(
            last - first, a, b + first * kLanes, b_row, c + first * kLanes, c_row, rows, depth);
    }
}
