// The products of a linear layer on CPUs, float32: rows [R, I], weights [O, I], outputs [R, O].
//
// Every sum runs over blocks of kDepth terms, in their order, whatever the number of rows or threads
// is: an output is a function of its own row and the weights, with the same bits in any batch.

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include <algorithm>

#include "matmul.h"
#include "parallel.h"
#include "transpose.h"

namespace {

constexpr int64_t kDepth = 128;  // terms of a block; its panel of B fits the first cache
constexpr int64_t kRows = 96;    // rows of A that meet a panel while it is there

// the first `count` numbers, all of a vector if there are more; 0 behind them
inline Vec load_some(const float* from, int64_t count) {
    if (count >= kLanes) return load(from);
#if defined(__AVX512F__)
    return (Vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << count) - 1), from);
#else
    Vec value{};
    std::memcpy(&value, from, count * sizeof(float));
    return value;
#endif
}

inline void store_some(float* to, Vec value, int64_t count) {
    if (count >= kLanes) return store(to, value);
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1 << count) - 1), (__m512)value);
#else
    std::memcpy(to, &value, count * sizeof(float));
#endif
}

// The columns of B and C, in panels of nearly equal width.
struct Panels {
    int64_t columns;
    int64_t vectors = round_up(columns) / kLanes;
    int64_t count = (vectors + kWidest - 1) / kWidest;

    int64_t first(int64_t panel) const { return panel * vectors / count * kLanes; }
    int64_t width(int64_t panel) const { return first(panel + 1) - first(panel); }
};

// Copies a block [depth, width] of B, of which `columns` exist, to rows of whole vectors.
void pack(Strided b, int64_t depth, int64_t width, int64_t columns, float* to) {
    if (b.column == 1) {
        for (int64_t k = 0; k < depth; k++)
            for (int64_t c = 0; c < width; c += kLanes)
                store(to + k * width + c, load_some(b.data + k * b.row + c, columns - c));
        return;
    }
    for (int64_t c = 0; c < width; c += kLanes)
        for (int64_t k = 0; k < depth; k += kLanes) {
            Vec lines[kLanes];
            for (int64_t i = 0; i < kLanes; i++)
                lines[i] = c + i < columns
                               ? load_some(b.data + (c + i) * b.column + k, depth - k)
                               : Vec{};
            transpose<kLanes>(lines);
            for (int64_t i = 0; i < kLanes && k + i < depth; i++)
                store(to + (k + i) * width + c, lines[i]);
        }
}

// C [rows, columns] = A [rows, depth] times a packed block, plus what `more(row)` points to.
template <typename More>
void multiply_block(
    Strided a, const float* block, int64_t rows, int64_t depth, int64_t width, int64_t columns,
    float* c, int64_t c_row, const More& more) {
    multiply_into(
        a, block, width, rows, width, depth, [=](int64_t row, int64_t, const auto& values) {
            const float* added = more(row);
            float* to = c + row * c_row;
            int64_t left = columns;
            for (const Vec& value : values) {
                store_some(to, value + load_some(added, left), left);
                to += kLanes, added += kLanes, left -= kLanes;
            }
        });
}

// C [rows, columns] = A [rows, depth] B [depth, columns] + bias [columns]; a row or a column of B
// lies in one piece.
void multiply_rows(
    Strided a, Strided b, const float* bias, float* c, int64_t rows, int64_t depth,
    int64_t columns, int64_t threads) {
    const Panels panels{columns};
    const int64_t blocks = (depth + kDepth - 1) / kDepth, width = panels.vectors * kLanes;
    Floats packed(depth * width);
    const auto place = [&](int64_t begin, int64_t size, int64_t panel) {
        return packed.data() + begin * width + size * panels.first(panel);
    };
    const auto size_at = [&](int64_t begin) { return std::min(kDepth, depth - begin); };
    const bool worth_it = depth * width >= 65536;
    run_pieces(blocks * panels.count, worth_it ? threads : 1, [&](int64_t piece, int64_t) {
        const int64_t begin = piece / panels.count * kDepth, panel = piece % panels.count;
        const int64_t first = panels.first(panel), size = size_at(begin);
        const Strided from{b.data + begin * b.row + first * b.column, b.row, b.column};
        pack(from, size, panels.width(panel), columns - first, place(begin, size, panel));
    });
    const int64_t pieces = std::max((rows + kRows - 1) / kRows, std::min(threads, rows));
    run_pieces(pieces, threads, [&](int64_t piece, int64_t) {
        const int64_t from = piece * rows / pieces, count = (piece + 1) * rows / pieces - from;
        for (int64_t begin = 0; begin < depth; begin += kDepth)
            for (int64_t panel = 0; panel < panels.count; panel++) {
                const int64_t first = panels.first(panel), size = size_at(begin);
                float* to = c + from * columns + first;
                const Strided some{
                    a.data + from * a.row + begin * a.column, a.row, a.column};
                multiply_block(
                    some, place(begin, size, panel), count, size, panels.width(panel),
                    columns - first, to, columns, [=](int64_t row) {
                        return begin ? to + row * columns : bias + first;
                    });
            }
    });
}

// The sums of the columns [first, last) of rows [rows, width]: of few rows each, and of these sums
// in turn, which rounds less than one long sum.
void sum_columns(
    const float* values, int64_t rows, int64_t width, int64_t first, int64_t last, float* sums) {
    constexpr int64_t kChains = 4, kFew = 8 * kChains, kMany = 32 * kFew;
    for (int64_t c = first; c < last; c += kLanes) {
        Vec total{}, many{};
        for (int64_t begin = 0; begin < rows; begin += kFew) {
            Vec few[kChains]{};
            for (int64_t r = begin; r < std::min(begin + kFew, rows); r++)
                few[r % kChains] += load_some(values + r * width + c, last - c);
            many += (few[0] + few[1]) + (few[2] + few[3]);
            if ((begin + kFew) % kMany == 0) {
                total += many;
                many = Vec{};
            }
        }
        store_some(sums + c, total + many, last - c);
    }
}

}  // namespace

// output [rows, outputs] = input [rows, inputs] weight^T + bias. The rows of input are `step` apart.
// Returns 0, or 1 where memory ran out, like all below.
extern "C" int linear_forward(
    const float* input, const float* weight, const float* bias, float* output, int64_t rows,
    int64_t inputs, int64_t outputs, int64_t step, int64_t threads) {
    return guarded([&] {
        const Floats zeros(bias ? 0 : outputs);
        multiply_rows(
            {input, step, 1}, {weight, 1, inputs}, bias ? bias : zeros.data(), output, rows,
            inputs, outputs, threads);
    });
}

// to [rows, inputs] = gradient [rows, outputs] weight
extern "C" int linear_input_gradient(
    const float* gradient, const float* weight, float* to, int64_t rows, int64_t inputs,
    int64_t outputs, int64_t threads) {
    return guarded([&] {
        const Floats zeros(inputs);
        multiply_rows(
            {gradient, outputs, 1}, {weight, inputs, 1}, zeros.data(), to, rows, outputs, inputs,
            threads);
    });
}

// to [outputs, inputs] = gradient^T input, and the sums [outputs] of gradient's rows, unless null
extern "C" int linear_weight_gradient(
    const float* gradient, const float* input, float* to, float* sums, int64_t rows,
    int64_t inputs, int64_t outputs, int64_t step, int64_t threads) {
    return guarded([&] {
        const Panels panels{inputs};
        // shares of the outputs that begin on a cache line of the gradient
        const int64_t vectors = round_up(outputs) / kLanes;
        const int64_t shares = std::min(vectors, threads);
        std::vector<Floats> blocks(std::max<int64_t>(threads, 1));
        for (auto& block : blocks) block.resize(kDepth * kWidest * kLanes);
        const Floats zeros(kWidest * kLanes);
        run_pieces(panels.count * shares, threads, [&](int64_t piece, int64_t worker) {
            const int64_t panel = piece % panels.count, share = piece / panels.count;
            const int64_t low = share * vectors / shares * kLanes;
            const int64_t high = std::min((share + 1) * vectors / shares * kLanes, outputs);
            const int64_t first = panels.first(panel), width = panels.width(panel);
            float* block = blocks[worker].data();
            float* start = to + low * inputs + first;
            for (int64_t begin = 0; begin < rows; begin += kDepth) {
                const int64_t size = std::min(kDepth, rows - begin);
                pack({input + begin * step + first, step, 1}, size, width, inputs - first, block);
                multiply_block(
                    {gradient + begin * outputs + low, 1, outputs}, block, high - low, size,
                    width, inputs - first, start, inputs, [=, zero = zeros.data()](int64_t row) {
                        return begin ? start + row * inputs : zero;
                    });
            }
            if (sums && panel == 0) sum_columns(gradient, rows, outputs, low, high, sums);
        });
    });
}
