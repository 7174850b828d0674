// What an attention is asked for, and how its pairs are cut into chunks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "windows.h"

// kNone: of the last layer, where no score is behind it
enum Activation : int64_t { kSigmoid, kPRelu, kDice, kNone };

// filled by din_attention/compiled.py, which has the same fields in the same order
struct Problem {
    int64_t candidates, behaviors, dim, layers, activation, softmax, scored, threads;
    const int64_t* widths;   // [layers], of the hidden layers
    const int64_t* windows;  // [candidates, 2]
    const float* query;      // [candidates, dim]
    const float* behavior;   // [behaviors, dim]
    const float* const* weights;  // [layers + 1] as in ActivationUnit; [layers] if not scored
    const float* const* biases;
    const float* const* alphas;
    const float* const* means;
    const float* const* variances;

    bool has_windows() const { return lie_inside(windows, candidates, behaviors); }
};

static inline bool is_empty(const Problem& problem, int64_t candidate) {
    return problem.windows[2 * candidate + 1] <= problem.windows[2 * candidate];
}

struct Chunk {
    int64_t first, last;  // in the order of the schedule
    int64_t begin, end;   // its share of all behaviours; if chunks are disjoint, what it sees is in it
};

// The candidates that have behaviours, by the begin of their window, cut into chunks. Chunks are a
// function of the windows alone, so sums over them do not know the number of threads.
struct Schedule {
    std::vector<int64_t> order;
    std::vector<Chunk> chunks;
    int64_t longest = 0;  // candidates of the largest chunk

    // disjoint: no two chunks may see the same behaviour
    Schedule(const Problem& problem, bool disjoint) : behaviors(problem.behaviors) {
        const int64_t* windows = problem.windows;
        int64_t pairs = 0;
        for (int64_t c = 0; c < problem.candidates; c++)
            if (!is_empty(problem, c)) {
                order.push_back(c);
                pairs += windows[2 * c + 1] - windows[2 * c];
            }
        const auto earlier = [&](int64_t a, int64_t b) { return windows[2 * a] < windows[2 * b]; };
        if (disjoint && !std::is_sorted(order.begin(), order.end(), earlier))
            std::stable_sort(order.begin(), order.end(), earlier);
        const int64_t size = std::max<int64_t>(1024, pairs / 64);
        int64_t first = 0, held = 0, seen = 0;
        const int64_t count = static_cast<int64_t>(order.size());
        for (int64_t i = 0; i < count; i++) {
            const int64_t begin = windows[2 * order[i]], end = windows[2 * order[i] + 1];
            if (held >= size && (!disjoint || begin >= seen)) {
                add(first, i);
                first = i, held = 0;
            }
            held += end - begin;
            seen = std::max(seen, end);
        }
        if (first < count) add(first, count);
        for (size_t i = 1; i < chunks.size(); i++)
            chunks[i - 1].end = chunks[i].begin = windows[2 * order[chunks[i].first]];
    }

   private:
    int64_t behaviors;

    void add(int64_t first, int64_t last) {
        chunks.push_back({first, last, 0, behaviors});
        longest = std::max(longest, last - first);
    }
};
