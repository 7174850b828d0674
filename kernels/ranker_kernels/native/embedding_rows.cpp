// Rows of float32 tables on CPUs: looked up, and moved by row-wise Adagrad.
//
// The gradients of equal rows are added up in the order of their positions, and a row is written by
// one thread, so the result does not depend on the number of threads.

#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "vector.h"

namespace {

constexpr int64_t kAhead = 16;  // rows that are asked of memory before they are needed

struct Places {
    std::vector<int64_t> row, position;
};

// Sorts positions by row; equal rows stay in the order of their positions. Radix sort, 11 bits a time.
Places sort_by_row(const int64_t* rows, int64_t count) {
    constexpr int kBits = 11, kBuckets = 1 << kBits;
    Places now{std::vector<int64_t>(rows, rows + count), std::vector<int64_t>(count)};
    Places next{std::vector<int64_t>(count), std::vector<int64_t>(count)};
    for (int64_t i = 0; i < count; i++) now.position[i] = i;
    const int64_t highest = count ? *std::max_element(rows, rows + count) : 0;
    for (int shift = 0; shift < 63 && (highest >> shift) > 0; shift += kBits) {
        int64_t starts[kBuckets + 1] = {};
        for (int64_t row : now.row) starts[((row >> shift) & (kBuckets - 1)) + 1]++;
        for (int b = 0; b < kBuckets; b++) starts[b + 1] += starts[b];
        for (int64_t i = 0; i < count; i++) {
            const int64_t to = starts[(now.row[i] >> shift) & (kBuckets - 1)]++;
            next.row[to] = now.row[i];
            next.position[to] = now.position[i];
        }
        std::swap(now, next);
    }
    return now;
}

struct Adagrad {
    float* table;            // [rows, width]
    float* squares;          // [rows]
    const float* gradients;  // [positions, width]
    int64_t width;
    float rate, epsilon;

    // moves the rows of the places [first, last), which begin and end with a row
    void move(const Places& places, int64_t first, int64_t last) const {
        std::vector<float> sum(width);
        while (first < last) {
            const int64_t row = places.row[first];
            float* weights = table + row * width;
            __builtin_prefetch(weights, 1);
            __builtin_prefetch(squares + row, 1);
            std::copy_n(gradients + places.position[first] * width, width, sum.begin());
            for (first++; first < last && places.row[first] == row; first++)
                add(sum.data(), gradients + places.position[first] * width);
            float square = 0.0f;
            for (float value : sum) square += value * value;
            squares[row] += square / static_cast<float>(width);
            const float step = rate / (std::sqrt(squares[row]) + epsilon);
            for (int64_t d = 0; d < width; d++) weights[d] -= step * sum[d];
            if (first + kAhead < last)
                __builtin_prefetch(gradients + places.position[first + kAhead] * width);
        }
    }

   private:
    void add(float* __restrict to, const float* __restrict from) const {
        for (int64_t d = 0; d < width; d++) to[d] += from[d];
    }
};

}  // namespace

// Copies the rows [count] of a table [any, width] to output [count, width].
extern "C" void gather_rows(
    const float* table, const int64_t* rows, int64_t count, int64_t width, float* output) {
    for (int64_t i = 0; i < count; i++) {
        if (i + kAhead < count) __builtin_prefetch(table + rows[i + kAhead] * width);
        std::memcpy(output + i * width, table + rows[i] * width, width * sizeof(float));
    }
}

// squares[row] += mean of the squared gradient; table[row] -= rate / (sqrt(squares[row]) + epsilon)
// times the gradient, once for each different row of rows [count], with the sum of its gradients
// [count, width]. Returns 0, or 1 where memory ran out.
extern "C" int update_rowwise_adagrad(
    float* table, float* squares, const int64_t* rows, const float* gradients, int64_t count,
    int64_t width, float rate, float epsilon, int64_t threads) {
    return guarded([&] {
        const Places places = sort_by_row(rows, count);
        const Adagrad adagrad{table, squares, gradients, width, rate, epsilon};
        const int64_t pieces = std::clamp<int64_t>(count / 4096, 1, 16 * threads);
        // the first place at or behind a fair share that begins a row
        const auto bound = [&](int64_t piece) {
            int64_t at = piece * count / pieces;
            while (at > 0 && at < count && places.row[at] == places.row[at - 1]) at++;
            return at;
        };
        run_pieces(pieces, threads, [&](int64_t piece, int64_t) {
            adagrad.move(places, bound(piece), bound(piece + 1));
        });
    });
}
