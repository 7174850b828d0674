// The k behaviours of every window with the highest scores, on CPUs in float32: the same selection
// as blocked.py.
//
// Candidates with nearly the same window form a group. Its rows (candidates times heads) are the
// lanes of vectors, and a behaviour's numbers are read one by one from where they lie. The first scores
// of a row are all kept; their k-th highest is its bound, and of later ones only those are kept that
// exceed it. A score is the sum over blocks of columns in their order, each a chain of
// multiply-adds: the same bits in whatever group.

#include <cmath>
#include <limits>

#include "parallel.h"
#include "search_problem.h"
#include "search_walk.h"
#include "windows.h"

namespace {

constexpr int64_t kMostRows = 4 * kLanes;    // of a walk over the behaviours
constexpr int64_t kMostProjected = 1 << 17;  // numbers: 512 KB of a core's cache

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

    void run(const WindowGroup& group) {
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
    void walk_rows(const WindowGroup& group, int64_t first, int64_t last) {
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
    void walk(const WindowGroup& group, int64_t first, int64_t last) {
        constexpr int64_t kWidth = N * V;
        best.resize(last - first, Best(problem.k));
        for (Best& of_row : best) of_row.clear();
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

    const float* query_of(const WindowGroup& group, int64_t row) const {
        const int64_t candidate = group.candidates[row / problem.heads];
        return problem.query + (candidate * problem.heads + row % problem.heads) * dim;
    }

    const int64_t* window_of(const WindowGroup& group, int64_t row) const {
        return problem.windows + 2 * group.candidates[row / problem.heads];
    }

    bool sees(const WindowGroup& group, int64_t row, int64_t behavior) const {
        const int64_t* window = window_of(group, row);
        return window[0] <= behavior && behavior < window[1];
    }
};

}  // namespace

// Writes to index [candidates, k] what the windows that are longer than k select, ascending; the
// others are the caller's. Returns 0, 1 where memory ran out, or kOutside.
extern "C" int search_topk(const SearchProblem* problem, int64_t* index) {
    if (!lie_inside(problem->windows, problem->candidates, problem->behaviors)) return kOutside;
    return guarded([&] {
        const int64_t largest = std::max<int64_t>(1, kMostRows / problem->heads);
        const std::vector<WindowGroup> groups =
            group_windows(problem->windows, problem->candidates, problem->k, largest);
        const int64_t pieces = static_cast<int64_t>(groups.size());
        std::vector<Searcher> workers(
            std::clamp<int64_t>(pieces, 1, problem->threads), Searcher(*problem, index));
        run_pieces(pieces, workers.size(), [&](int64_t piece, int64_t worker) {
            workers[worker].run(groups[piece]);
        });
    });
}
