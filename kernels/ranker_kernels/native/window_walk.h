// How an attention meets the windows of a group of candidates, tile by tile.
#pragma once

#include "attention_problem.h"
#include "matmul.h"
#include "windows.h"

constexpr int64_t kMostRows = 64;  // of a group, unless one candidate has more heads
constexpr int64_t kTile = 64;      // behaviours

// Tiles of a matrix whose rows are padded to whole vectors: as they lie, where they are.
struct PaddedRows {
    const float* matrix;
    int64_t width, pad;
    Floats copy;

    PaddedRows(const float* matrix, int64_t width)
        : matrix(matrix), width(width), pad(round_up(width)),
          copy(width == pad ? 0 : kTile * pad, 0.0f) {}

    const float* read(int64_t begin, int64_t count) {
        const float* from = matrix + begin * width;
        if (width == pad) return from;
        for (int64_t i = 0; i < count; i++) std::copy_n(from + i * width, width, &copy[i * pad]);
        return copy.data();
    }
};

// The same for what is added to a matrix.
struct PaddedSums {
    float* matrix;
    int64_t width, pad;
    Floats sums;

    PaddedSums(float* matrix, int64_t width)
        : matrix(matrix), width(width), pad(round_up(width)), sums(width == pad ? 0 : kTile * pad) {}

    // returns where sums of a tile's rows are added
    float* open(int64_t begin) {
        if (width == pad) return matrix + begin * width;
        std::fill(sums.begin(), sums.end(), 0.0f);
        return sums.data();
    }

    void close(int64_t begin, int64_t count) {
        if (width == pad) return;
        for (int64_t i = 0; i < count; i++)
            for (int64_t v = 0; v < width; v++)
                matrix[(begin + i) * width + v] += sums[i * pad + v];
    }
};

// One group, and the tile of behaviours that it meets.
struct Walk {
    const AttentionProblem& given;
    const WindowGroup* group = nullptr;
    int64_t rows = 0, pad = 0;     // of the group; lanes
    int64_t begin = 0, count = 0;  // of the tile
    Floats query_t;                // [dim, pad]
    Floats head_of;                // [heads, pad]: 1 where a row belongs to a head; with a bias
    Floats scores;                 // [kTile, pad], then weights
    std::vector<int32_t> first, last;  // [pad], of each row's window, from the begin of the group

    explicit Walk(const AttentionProblem& given) : given(given) {
        const int64_t lanes = round_up(std::max(kMostRows, given.heads));
        query_t.resize(given.dim * lanes), scores.resize(kTile * lanes);
        first.resize(lanes), last.resize(lanes);
        if (given.bias) head_of.resize(given.heads * lanes);
    }

    // The number of the row in [candidates, heads] matrices.
    int64_t number(int64_t row) const {
        return group->candidates[row / given.heads] * given.heads + row % given.heads;
    }

    void enter(const WindowGroup& entered) {
        group = &entered;
        rows = static_cast<int64_t>(entered.candidates.size()) * given.heads;
        pad = round_up(rows);
        transpose(given.query, given.dim, query_t);
        std::fill_n(head_of.begin(), given.bias ? given.heads * pad : 0, 0.0f);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t* window = given.seen + 2 * entered.candidates[r / given.heads];
            first[r] = static_cast<int32_t>(window[0] - entered.begin);
            last[r] = static_cast<int32_t>(window[1] - entered.begin);
            if (given.bias) head_of[r % given.heads * pad + r] = 1.0f;
        }
    }

    // Writes the group's rows of a matrix [candidates, heads, width] as columns [width, pad].
    void transpose(const float* matrix, int64_t width, Floats& columns) const {
        std::fill_n(columns.begin(), width * pad, 0.0f);
        for (int64_t r = 0; r < rows; r++) {
            const float* from = matrix + number(r) * width;
            for (int64_t d = 0; d < width; d++) columns[d * pad + r] = from[d];
        }
    }

    // Calls work for each tile, with its scores.
    template <typename Work>
    void run(Work work) {
        const int64_t length = group->end - group->begin, tiles = (length + kTile - 1) / kTile;
        for (int64_t tile = 0; tile < tiles; tile++) {
            // of nearly the same size
            begin = group->begin + tile * length / tiles;
            count = group->begin + (tile + 1) * length / tiles - begin;
            multiply<false>(
                {given.key_matrix() + begin * given.key_width(), given.key_width(), 1},
                query_t.data(), pad, scores.data(), pad, count, pad, given.dim);
            if (given.bias)
                multiply<true>(
                    {given.bias + begin * given.heads, given.heads, 1}, head_of.data(), pad,
                    scores.data(), pad, count, pad, given.heads);
            work();
        }
    }

    // Puts a value in place of the scores that a row does not see.
    void hide(float value) {
        if (group->uniform) return;
        const Vec hidden = splat(value);
        for (int64_t v = 0; v < pad; v += kLanes) {
            IntVec from, to;
            std::memcpy(&from, &first[v], sizeof from);
            std::memcpy(&to, &last[v], sizeof to);
            for (int64_t i = 0; i < count; i++) {
                const IntVec place = static_cast<int32_t>(begin - group->begin + i) - IntVec{};
                float* at = &scores[i * pad + v];
                store(at, ((place >= from) & (place < to)) ? load(at) : hidden);
            }
        }
    }
};
