// What an attention is asked for: to selected rows, or to windows of them.
#pragma once

#include "windows.h"

// filled by target_attention/compiled.py, which has the same fields in the same order
struct AttentionProblem {
    int64_t candidates, heads, dim, width, rows, columns, threads;
    const float* query;   // [candidates, heads, dim]
    const float* keys;    // [rows, dim], or null: the first columns of the values
    const float* values;  // [rows, width]
    const float* bias;    // [rows, heads], or null
    const int64_t* seen;  // [candidates, columns]: rows, -1 for none; or begin and end of a window

    const float* key_matrix() const { return keys ? keys : values; }
    int64_t key_width() const { return keys ? dim : width; }

    bool selects_rows() const {
        for (int64_t i = 0; i < candidates * columns; i++)
            if (seen[i] >= rows) return false;
        return true;
    }

    bool has_windows() const { return lie_inside(seen, candidates, rows); }
};

// Gradients of it: keys are null where they are columns of the values, bias where there is none.
struct AttentionGradients {
    float *query, *keys, *values, *bias;
};

// What a backward is told: the gradient of the output, and what the forward left.
struct AttentionUpstream {
    const float *gradient, *output, *normalizer;
};
