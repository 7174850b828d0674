// What a search is asked for.
#pragma once

#include <cstdint>

// filled by search_topk/compiled.py, which has the same fields in the same order
struct SearchProblem {
    int64_t candidates, behaviors, heads, k, blocks, threads;
    const int64_t* windows;      // [candidates, 2]
    const float* query;          // [candidates, heads, sum of widths]
    const float* const* values;  // [blocks], each [counts, widths]
    const int64_t* const* rows;  // [blocks], each [behaviours], or null: every behaviour has its own
    const int64_t* counts;       // [blocks]
    const int64_t* widths;       // [blocks]
    const float* bias;           // [behaviours, heads], or null
};
