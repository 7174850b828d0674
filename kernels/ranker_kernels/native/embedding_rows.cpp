// Rows of float32 tables on CPUs: looked up, and moved by row-wise Adagrad.
//
// The gradients of equal rows are added up in the order of keys and ids, and a row is written by one
// thread, so the result does not depend on the number of threads.

#include <cmath>

#include "keyed_ids.h"
#include "row_parts.h"
#include "vector.h"

namespace {

constexpr int64_t kLine = 16;         // floats of a cache line
constexpr int64_t kAhead = 64;        // lines that are asked of memory before they are needed
constexpr int64_t kPiece = 1 << 15;   // floats that a thread copies before it takes more
constexpr int64_t kTogether = 64;     // rows of a key that are copied before those beside them
constexpr int64_t kCached = 1 << 17;  // floats of which the sums of a part stay in the second cache

int64_t rows_ahead(int64_t width) {
    return std::max<int64_t>(kAhead * kLine / std::max(width, kLine), 4);
}

template <int kWrite>
inline void prefetch(const float* row, int64_t width) {
    for (int64_t d = 0; d < width; d += kLine) __builtin_prefetch(row + d, kWrite);
}

// to += factor from
inline void add_row(float factor, const float* from, float* to, int64_t width) {
    int64_t d = 0;
    for (; d + kLanes <= width; d += kLanes) store(to + d, load(to + d) + factor * load(from + d));
    for (; d < width; d++) to[d] += factor * from[d];
}

inline float mean_square(const float* row, int64_t width) {
    Vec squares{};
    int64_t d = 0;
    for (; d + kLanes <= width; d += kLanes) squares += load(row + d) * load(row + d);
    float total = sum(squares);
    for (; d < width; d++) total += row[d] * row[d];
    return total / static_cast<float>(width);
}

struct Adagrad {
    float* table;    // [rows, width]
    float* squares;  // [rows]
    int64_t width;
    float rate, epsilon;

    // along the sum [width] of its gradients
    void move(int64_t row, const float* sum) const {
        squares[row] += mean_square(sum, width);
        const float step = rate / (std::sqrt(squares[row]) + epsilon);
        add_row(-step, sum, table + row * width, width);
    }
};

// What one thread works with: the different rows of a part, found in a table by their hash.
struct Mover {
    const Adagrad& adagrad;
    std::vector<uint32_t> slots;  // at a row's hash, or behind: one more than its place in rows, or 0
    std::vector<int64_t> rows;
    Floats sums;                  // [rows and more, width]

    void move(const Place* first, const Place* last) {
        const int64_t width = adagrad.width, ahead = rows_ahead(width);
        size_t size = 1;
        while (static_cast<int64_t>(size) < 2 * (last - first)) size *= 2;
        slots.assign(size, 0);
        rows.clear();
        for (const Place* place = first; place < last; place++) {
            if (last - place > ahead) prefetch<0>(place[ahead].gradient, width);
            add(place->row, place->gradient);
        }
        for (size_t i = 0; i < rows.size(); i++) adagrad.move(rows[i], &sums[i * width]);
    }

   private:
    void add(int64_t row, const float* gradient) {
        const int64_t width = adagrad.width;
        for (size_t slot = hash_of(row);; slot++) {
            uint32_t& known = slots[slot & (slots.size() - 1)];
            if (known == 0) {
                // memory has until all gradients of the part are added up
                prefetch<1>(adagrad.table + row * width, width);
                __builtin_prefetch(adagrad.squares + row, 1);
                const size_t at = rows.size() * width;
                if (at == sums.size()) sums.resize(std::max<size_t>(2 * at, 64 * width));
                copy_row(gradient, &sums[at], width);
                rows.push_back(row);
                known = static_cast<uint32_t>(rows.size());
                return;
            }
            if (rows[known - 1] == row)
                return add_row(1.0f, gradient, &sums[(known - 1) * width], width);
        }
    }
};

}  // namespace

// 1 where the table of each key has the rows that its ids name, else 0.
extern "C" int are_in_bounds(const KeyedIds* keyed) {
    for (int64_t key = 0; key < keyed->keys; key++) {
        const uint64_t size = keyed->sizes[key];
        bool outside = false;
        for (int64_t i = keyed->begins[key]; i < keyed->ends[key]; i++)
            outside |= static_cast<uint64_t>(keyed->ids[i]) >= size;
        if (outside) return 0;
    }
    return 1;
}

// Copies the rows of a table [any, width] that the ids of each key name to outputs[key] [ids, width], a
// row strides[key] floats behind the one before. Returns 0, or 1 where memory ran out.
extern "C" int gather_rows(
    const float* table, const KeyedIds* keyed, int64_t width, float* const* outputs,
    const int64_t* strides, int64_t threads) {
    return guarded([&] {
        const int64_t ahead = rows_ahead(width);
        const auto copy = [&](int64_t key, int64_t first, int64_t last, int64_t end) {
            const float* rows = table + keyed->first_rows[key] * width;
            const int64_t* ids = keyed->ids_of(key);
            for (int64_t i = first; i < last; i++) {
                if (i + ahead < end) prefetch<0>(rows + ids[i + ahead] * width, width);
                copy_row(rows + ids[i] * width, outputs[key] + i * strides[key], width);
            }
        };
        // keys whose rows lie side by side are copied together, so that memory is written in its order
        std::vector<int64_t> leaders;
        Stretches stretches;
        for (int64_t key = 0; key < keyed->keys; key++) {
            const bool beside = key > 0 && outputs[key] == outputs[key - 1] + width &&
                                strides[key] == strides[key - 1] &&
                                keyed->count(key) == keyed->count(key - 1);
            if (beside) continue;
            leaders.push_back(key);
            stretches.add(keyed->count(key));
        }
        leaders.push_back(keyed->keys);
        const int64_t count = stretches.count();
        const int64_t pieces = std::max<int64_t>(count * width / kPiece, 1);
        run_pieces(pieces, threads, [&](int64_t piece, int64_t) {
            const auto use = [&](int64_t group, int64_t first, int64_t last) {
                for (int64_t i = first; i < last; i += kTogether)
                    for (int64_t key = leaders[group]; key < leaders[group + 1]; key++)
                        copy(key, i, std::min(i + kTogether, last), last);
            };
            stretches.walk(piece * count / pieces, (piece + 1) * count / pieces, use);
        });
    });
}

// squares[row] += mean of the squared gradient; table[row] -= rate / (sqrt(squares[row]) + epsilon)
// times the gradient, once for each different row, with the sum of its gradients. Those of a key are
// gradients[key] [ids, width], a row strides[key] floats behind the one before. Returns as above.
extern "C" int update_rowwise_adagrad(
    float* table, float* squares, const KeyedIds* keyed, const float* const* gradients,
    const int64_t* strides, int64_t width, float rate, float epsilon, int64_t threads) {
    return guarded([&] {
        const Stretches stretches = keyed->stretches();
        const auto walk = [&](int64_t first, int64_t last, auto use) {
            stretches.walk(first, last, [&](int64_t key, int64_t from, int64_t to) {
                const int64_t* ids = keyed->ids_of(key);
                for (int64_t i = from; i < to; i++)
                    use(keyed->first_rows[key] + ids[i], gradients[key] + i * strides[key]);
            });
        };
        const RowParts parts(walk, stretches.count(), kCached / width, threads);
        const Adagrad adagrad{table, squares, width, rate, epsilon};
        std::vector<Mover> movers(std::min(parts.parts, threads), Mover{adagrad, {}, {}, {}});
        run_pieces(parts.parts, movers.size(), [&](int64_t part, int64_t worker) {
            const Place* places = parts.places.get();
            movers[worker].move(places + parts.begins[part], places + parts.begins[part + 1]);
        });
    });
}
