// The k behaviours of every window with the highest scores, on CPUs in float32: the same selection
// as blocked.py.
//
// Candidates with nearly the same window form a group. Its rows (candidates times heads) are the
// lanes of vectors, a behaviour's numbers are read one by one from where they lie, and a score is
// compared with its row's bound while it is in a register: no scores are ever written but those that
// may be among the k. A score is the sum over blocks of columns in their order, each a chain of
// multiply-adds: the same bits in whatever group.

#include <cmath>
#include <limits>

#include "parallel.h"
#include "search_best.h"
#include "search_problem.h"
#include "vector.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kMostRows = 4 * kLanes;  // of a walk over the behaviours
constexpr int64_t kAhead = 16;             // behaviours that are asked of memory before they are needed
constexpr int64_t kMostProjected = 1 << 17;  // numbers: 512 KB of a core's cache

template <int N>
using Row = typename Lanes<N>::Type;

// a bit for each lane whose score is not at most the bound, so also for one that is no number
template <int N>
static inline uint32_t exceeding(Row<N> score, Row<N> bound) {
#if defined(__AVX512F__)
    if constexpr (N == 16) return _mm512_cmp_ps_mask((__m512)score, (__m512)bound, _CMP_NLE_UQ);
#endif
#if defined(__AVX__)
    if constexpr (N == 8)
        return _mm256_movemask_ps(_mm256_cmp_ps((__m256)score, (__m256)bound, _CMP_NLE_UQ));
#endif
#if defined(__SSE2__)
    if constexpr (N == 4) return _mm_movemask_ps(_mm_cmpnle_ps((__m128)score, (__m128)bound));
#endif
    uint32_t bits = 0;
    for (int lane = 0; lane < N; lane++) bits |= uint32_t{!(score[lane] <= bound[lane])} << lane;
    return bits;
}

// A block of columns, with its part of the queries.
struct Block {
    const float* values;
    const int64_t* rows;
    int64_t count, width;
    Floats query;      // [width, rows of the walk]
    Floats projected;  // [count, rows of the walk]: the products, where values repeat; else empty
};

// One walk over the behaviours of a group for up to V N rows.
template <int N, int V>
struct Walk {
    static constexpr int kRows = V * N;
    static constexpr int kKeys = V == 1 ? 8 : V == 2 ? 8 : V == 3 ? 6 : 4;

    std::vector<Block>& blocks;
    std::vector<Best>& best;  // of the rows
    int64_t origin;           // behaviour that is place 0
    alignas(64) float bounds[kRows];
    alignas(64) float scores[kKeys * kRows];

    Walk(std::vector<Block>& blocks, std::vector<Best>& best, int64_t origin)
        : blocks(blocks), best(best), origin(origin) {}

    void project(Block& block) {
        block.projected.resize(block.count * kRows);
        const float* keys[kKeys];
        for (int64_t at = 0; at < block.count; at += kKeys) {
            const int64_t size = std::min<int64_t>(kKeys, block.count - at);
            for (int i = 0; i < kKeys; i++)
                keys[i] = block.values + (at + std::min<int64_t>(i, size - 1)) * block.width;
            multiply<false>(block, keys);
            std::copy_n(scores, size * kRows, &block.projected[at * kRows]);
        }
    }

    // behaviours [begin, end), for the rows whose bound is not infinite
    void run(int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end; at += kKeys) {
            const int size = static_cast<int>(std::min<int64_t>(kKeys, end - at));
            for (size_t b = 0; b < blocks.size(); b++) score(blocks[b], at, size, end, b > 0);
            for (int i = 0; i < size; i++) {
                uint64_t bits = 0;  // of the rows
                for (int v = 0; v < V; v++) {
                    Row<N> value, bound;
                    std::memcpy(&value, &scores[i * kRows + v * N], sizeof value);
                    std::memcpy(&bound, &bounds[v * N], sizeof bound);
                    bits |= uint64_t{exceeding<N>(value, bound)} << (v * N);
                }
                for (; bits; bits &= bits - 1)
                    keep(__builtin_ctzll(bits), scores + i * kRows, at + i);
            }
        }
    }

   private:
    void keep(int row, const float* of_behavior, int64_t behavior) {
        // a score that is no number exceeds even the bound of a row that sees nothing here, or is none
        if (bounds[row] == INFINITY) return;
        if (best[row].push(of_behavior[row], behavior - origin))
            bounds[row] = best[row].prune();
    }

    // writes, or adds, a block's part of the scores of `size` behaviours from `at` on
    void score(const Block& block, int64_t at, int size, int64_t end, bool add) {
        if (!block.projected.empty()) {
            for (int i = 0; i < size; i++) {
                const float* from = &block.projected[block.rows[at + i] * kRows];
                float* to = scores + i * kRows;
                for (int r = 0; r < kRows; r++) to[r] = add ? to[r] + from[r] : from[r];
            }
            return;
        }
        const float* keys[kKeys];
        for (int i = 0; i < kKeys; i++) {
            const int64_t behavior = at + std::min(i, size - 1);
            keys[i] = block.values + row_of(block, behavior) * block.width;
            if (behavior + kAhead < end) {
                const float* next = block.values + row_of(block, behavior + kAhead) * block.width;
                for (int64_t d = 0; d < block.width; d += 16) __builtin_prefetch(next + d);
            }
        }
        if (add)
            multiply<true>(block, keys);
        else
            multiply<false>(block, keys);
    }

    static int64_t row_of(const Block& block, int64_t behavior) {
        return block.rows ? block.rows[behavior] : behavior;
    }

    template <bool kAdd>
    void multiply(const Block& block, const float* const* keys) {
        Row<N> total[kKeys][V];
#pragma GCC unroll 16
        for (int i = 0; i < kKeys; i++)
#pragma GCC unroll 16
            for (int v = 0; v < V; v++) total[i][v] = Row<N>{};
        const float* query = block.query.data();
        for (int64_t d = 0; d < block.width; d++, query += kRows) {
            Row<N> of_query[V];
#pragma GCC unroll 16
            for (int v = 0; v < V; v++) std::memcpy(&of_query[v], query + v * N, sizeof of_query[v]);
#pragma GCC unroll 16
            for (int i = 0; i < kKeys; i++) {
                const float value = keys[i][d];
#pragma GCC unroll 16
                for (int v = 0; v < V; v++) total[i][v] += value * of_query[v];
            }
        }
#pragma GCC unroll 16
        for (int i = 0; i < kKeys; i++)
#pragma GCC unroll 16
            for (int v = 0; v < V; v++) {
                float* to = scores + i * kRows + v * N;
                Row<N> before{};
                if (kAdd) std::memcpy(&before, to, sizeof before);
                before += total[i][v];
                std::memcpy(to, &before, sizeof before);
            }
    }
};

// Searches one group after the other.
struct Searcher {
    const SearchProblem& problem;
    int64_t* index;  // [candidates, k]
    int64_t dim = 0;
    std::vector<Block> blocks;
    std::vector<Best> best;  // of the rows of a walk
    std::vector<uint32_t> ranked;  // [rows of a group, k]
    std::vector<uint64_t> scratch;

    Searcher(const SearchProblem& problem, int64_t* index) : problem(problem), index(index) {
        for (int64_t b = 0; b < problem.blocks; b++) {
            blocks.push_back(
                {problem.values[b], problem.rows[b], problem.counts[b], problem.widths[b], {}, {}});
            dim += problem.widths[b];
        }
        // the bias: a block whose part of a query is 1 for the row's own head and 0 for the others
        if (problem.bias) blocks.push_back({problem.bias, nullptr, 0, problem.heads, {}, {}});
    }

    void run(const SearchGroup& group) {
        const int64_t rows = static_cast<int64_t>(group.candidates.size()) * problem.heads;
        ranked.resize(rows * problem.k);
        for (int64_t first = 0; first < rows; first += kMostRows)
            walk_rows(group, first, std::min(rows, first + kMostRows));
        RoundRobin merger(group.end - group.begin);
        const int64_t step = problem.heads * problem.k;
        for (size_t i = 0; i < group.candidates.size(); i++)
            merger.merge(
                &ranked[i * step], problem.heads, problem.k, group.begin,
                index + group.candidates[i] * problem.k);
    }

   private:
    void walk_rows(const SearchGroup& group, int64_t first, int64_t last) {
        const int64_t rows = last - first;
        if (rows <= 4) return walk<4, 1>(group, first, last);
        if constexpr (kLanes >= 8)
            if (rows <= 8) return walk<8, 1>(group, first, last);
        if (rows <= kLanes) return walk<kLanes, 1>(group, first, last);
        if (rows <= 2 * kLanes) return walk<kLanes, 2>(group, first, last);
        if (rows <= 3 * kLanes) return walk<kLanes, 3>(group, first, last);
        walk<kLanes, 4>(group, first, last);
    }

    template <int N, int V>
    void walk(const SearchGroup& group, int64_t first, int64_t last) {
        constexpr int64_t kWidth = N * V;
        best.assign(last - first, Best(problem.k));
        Walk<N, V> walk(blocks, best, group.begin);
        int64_t column = 0;
        for (Block& block : blocks) {
            const bool is_bias = column == dim;
            block.query.assign(block.width * kWidth, 0.0f);
            for (int64_t row = first; row < last; row++)
                for (int64_t d = 0; d < block.width; d++)
                    block.query[d * kWidth + row - first] =
                        is_bias ? d == row % problem.heads : query_of(group, row)[column + d];
            column += block.width;
            block.projected.clear();
            if (block.rows && 2 * block.count <= group.end - group.begin &&
                block.count * kWidth <= kMostProjected)
                walk.project(block);
        }
        // ranges between two ends of windows, in which the rows that see them are the same
        std::vector<int64_t> cuts{group.begin, group.end};
        for (int64_t row = first; row < last; row += problem.heads)
            for (int side = 0; side < 2; side++) cuts.push_back(window_of(group, row)[side]);
        std::sort(cuts.begin(), cuts.end());
        cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
        std::vector<float> bounds(last - first, std::numeric_limits<float>::quiet_NaN());
        for (size_t i = 0; i + 1 < cuts.size(); i++) {
            std::fill_n(walk.bounds, kWidth, INFINITY);
            for (int64_t row = first; row < last; row++)
                if (sees(group, row, cuts[i])) walk.bounds[row - first] = bounds[row - first];
            walk.run(cuts[i], cuts[i + 1]);
            for (int64_t row = first; row < last; row++)
                if (sees(group, row, cuts[i])) bounds[row - first] = walk.bounds[row - first];
        }
        for (int64_t row = first; row < last; row++) {
            Best& found = best[row - first];
            if (found.count > problem.k) found.prune();
            uint32_t* places = &ranked[row * problem.k];
            if (problem.heads > 1)
                found.rank(scratch, places);
            else  // nothing to merge: any order will do
                std::copy_n(found.places.begin(), problem.k, places);
        }
    }

    const float* query_of(const SearchGroup& group, int64_t row) const {
        const int64_t candidate = group.candidates[row / problem.heads];
        return problem.query + (candidate * problem.heads + row % problem.heads) * dim;
    }

    const int64_t* window_of(const SearchGroup& group, int64_t row) const {
        return problem.windows + 2 * group.candidates[row / problem.heads];
    }

    bool sees(const SearchGroup& group, int64_t row, int64_t behavior) const {
        const int64_t* window = window_of(group, row);
        return window[0] <= behavior && behavior < window[1];
    }
};

}  // namespace

// Writes to index [candidates, k] what the windows that are longer than k select, ascending; the
// others are the caller's. Returns 0, or 1 where memory ran out.
extern "C" int search_topk(const SearchProblem* problem, int64_t* index) {
    return guarded([&] {
        const int64_t largest = std::max<int64_t>(1, kMostRows / problem->heads);
        const std::vector<SearchGroup> groups = group_windows(*problem, largest);
        const int64_t pieces = static_cast<int64_t>(groups.size());
        std::vector<Searcher> workers(
            std::clamp<int64_t>(pieces, 1, problem->threads), Searcher(*problem, index));
        run_pieces(pieces, workers.size(), [&](int64_t piece, int64_t worker) {
            workers[worker].run(groups[piece]);
        });
    });
}
