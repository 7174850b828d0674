// Windows of candidates: whether they lie inside, and which are nearly the same, so that candidates
// may share a walk over the behaviours.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

// what the functions return where somebody would see rows that there are not
constexpr int kOutside = 2;

// Whether all windows [candidates, 2] lie in [0, rows); where empty ones lie does not matter.
static inline bool lie_inside(const int64_t* windows, int64_t candidates, int64_t rows) {
    for (int64_t c = 0; c < candidates; c++) {
        const int64_t begin = windows[2 * c], end = windows[2 * c + 1];
        if (begin < end && (begin < 0 || end > rows)) return false;
    }
    return true;
}

// Candidates whose windows are nearly the range [begin, end).
struct WindowGroup {
    std::vector<int64_t> candidates;
    int64_t begin, end;
    bool uniform;  // all windows are the whole range
};

// Groups up to `largest` windows [candidates, 2] that are longer than k, in the order of their begins.
static inline std::vector<WindowGroup> group_windows(
    const int64_t* windows, int64_t candidates, int64_t k, int64_t largest) {
    std::vector<int64_t> order;
    for (int64_t c = 0; c < candidates; c++)
        if (windows[2 * c + 1] - windows[2 * c] > k) order.push_back(c);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        return std::pair(windows[2 * a], windows[2 * a + 1]) <
               std::pair(windows[2 * b], windows[2 * b + 1]);
    });
    std::vector<WindowGroup> groups;
    int64_t shortest = 0;
    for (const int64_t c : order) {
        const int64_t begin = windows[2 * c], end = windows[2 * c + 1];
        shortest = std::min(shortest, end - begin);
        if (!groups.empty() && static_cast<int64_t>(groups.back().candidates.size()) < largest) {
            WindowGroup& last = groups.back();
            const int64_t joined = std::max(last.end, end);
            // what is computed in vain stays small
            if (4 * (joined - last.begin) <= 5 * shortest) {
                last.candidates.push_back(c);
                last.uniform = last.uniform && begin == last.begin && end == last.end;
                last.end = joined;
                continue;
            }
        }
        groups.push_back({{c}, begin, end, true});
        shortest = end - begin;
    }
    return groups;
}
