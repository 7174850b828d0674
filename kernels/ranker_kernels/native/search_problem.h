// What a search is asked for, and which candidates share a walk over the behaviours.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

// filled by search_topk/compiled.py, which has the same fields in the same order
struct SearchProblem {
    int64_t candidates, heads, k, blocks, threads;
    const int64_t* windows;      // [candidates, 2]
    const float* query;          // [candidates, heads, sum of widths]
    const float* const* values;  // [blocks], each [counts, widths]
    const int64_t* const* rows;  // [blocks], each [behaviours], or null: every behaviour has its own
    const int64_t* counts;       // [blocks]
    const int64_t* widths;       // [blocks]
    const float* bias;           // [behaviours, heads], or null
};

// Candidates whose windows are nearly the range [begin, end).
struct SearchGroup {
    std::vector<int64_t> candidates;
    int64_t begin, end;
};

// Groups the windows that are longer than k, in the order of their begins.
static inline std::vector<SearchGroup> group_windows(const SearchProblem& problem, int64_t largest) {
    const int64_t* windows = problem.windows;
    std::vector<int64_t> order;
    for (int64_t c = 0; c < problem.candidates; c++)
        if (windows[2 * c + 1] - windows[2 * c] > problem.k) order.push_back(c);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        return std::pair(windows[2 * a], windows[2 * a + 1]) <
               std::pair(windows[2 * b], windows[2 * b + 1]);
    });
    std::vector<SearchGroup> groups;
    int64_t shortest = 0;
    for (const int64_t c : order) {
        const int64_t begin = windows[2 * c], end = windows[2 * c + 1];
        shortest = std::min(shortest, end - begin);
        if (!groups.empty() && static_cast<int64_t>(groups.back().candidates.size()) < largest) {
            SearchGroup& last = groups.back();
            const int64_t joined = std::max(last.end, end);
            // what is scored in vain stays small
            if (4 * (joined - last.begin) <= 5 * shortest) {
                last.candidates.push_back(c);
                last.end = joined;
                continue;
            }
        }
        groups.push_back({{c}, begin, end});
        shortest = end - begin;
    }
    return groups;
}
