// A walk over behaviours that scores them for rows, and keeps the best of each.
#pragma once

#include <cmath>

#include "search_best.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

constexpr int64_t kAhead = 16;  // behaviours that are asked of memory before they are needed

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

// Writes the lanes that have a bit one behind the other, and numbers of theirs from `first` on; what
// follows them is overwritten. Returns how many there are.
template <int N>
static inline int list_lanes(
    uint32_t bits, Row<N> score, uint32_t first, float* scores, uint32_t* numbers) {
#if defined(__AVX512F__) && defined(__AVX512VL__)
    const __m512i lanes =
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i own = _mm512_add_epi32(lanes, _mm512_set1_epi32(first));
    if constexpr (N == 16) {
        _mm512_storeu_ps(scores, _mm512_maskz_compress_ps(bits, (__m512)score));
        _mm512_storeu_si512(numbers, _mm512_maskz_compress_epi32(bits, own));
    } else if constexpr (N == 8) {
        _mm256_storeu_ps(scores, _mm256_maskz_compress_ps(bits, (__m256)score));
        _mm256_storeu_si256(
            (__m256i*)numbers, _mm256_maskz_compress_epi32(bits, _mm512_castsi512_si256(own)));
    } else {
        _mm_storeu_ps(scores, _mm_maskz_compress_ps(bits, (__m128)score));
        _mm_storeu_si128(
            (__m128i*)numbers, _mm_maskz_compress_epi32(bits, _mm512_castsi512_si128(own)));
    }
#else
    float all[N];
    std::memcpy(all, &score, sizeof all);
    for (uint32_t left = bits; left; left &= left - 1) {
        *scores++ = all[__builtin_ctz(left)];
        *numbers++ = first + __builtin_ctz(left);
    }
#endif
    return __builtin_popcount(bits);
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
    static constexpr int kKeys = V == 1 ? 8 : V == 2 ? 8 : V == 3 ? 6 : 4;  // scored at once
    static constexpr int kHeld = 16 * kKeys;
    static_assert(kHeld % N == 0);

    std::vector<Block>& blocks;
    std::vector<Best>& best;  // of the rows
    int64_t origin;           // behaviour that is place 0
    alignas(64) float bounds[kRows];  // no number where a row has none, infinite where it sees nothing
    alignas(64) float scores[kHeld * kRows];
    // scores that exceed the bounds, and each one's number: behaviour times rows, and row
    float passing[kHeld * kRows + N];
    uint32_t numbers[kHeld * kRows + N];

    Walk(std::vector<Block>& blocks, std::vector<Best>& best, int64_t origin)
        : blocks(blocks), best(best), origin(origin) {}

    void project(Block& block) {
        block.projected.resize(block.count * kRows);
        const float* keys[kKeys];
        for (int64_t at = 0; at < block.count; at += kKeys) {
            const int64_t size = std::min<int64_t>(kKeys, block.count - at);
            for (int i = 0; i < kKeys; i++)
                keys[i] = block.values + (at + std::min<int64_t>(i, size - 1)) * block.width;
            multiply<false>(block, keys, scores);
            std::copy_n(scores, size * kRows, &block.projected[at * kRows]);
        }
    }

    // behaviours [begin, end), for the rows whose bound is not infinite
    void run(int64_t begin, int64_t end) {
        begin += fill(begin, end);
        for (int64_t at = begin; at < end; at += kHeld) {
            const int64_t held = std::min<int64_t>(kHeld, end - at);
            int listed = 0;
            for (int64_t i = 0; i < held; i += kKeys)
                listed = list(at, i, std::min<int64_t>(kKeys, held - i), end, listed);
            for (int i = 0; i < listed; i++)
                keep(numbers[i] % kRows, passing[i], at + numbers[i] / kRows);
        }
    }

   private:
    // Keeps all scores of behaviours from `begin` on while no row has a bound; returns their number.
    int64_t fill(int64_t begin, int64_t end) {
        int64_t length = end - begin;
        for (size_t row = 0; row < best.size(); row++)
            if (bounds[row] != INFINITY)
                length = std::isnan(bounds[row]) ? std::min(length, best[row].free()) : 0;
        for (int64_t at = begin; at < begin + length; at += kHeld) {
            const int64_t held = std::min<int64_t>(kHeld, begin + length - at);
            for (int64_t i = 0; i < held; i += kKeys)
                score_all(at + i, std::min<int64_t>(kKeys, held - i), end, scores + i * kRows);
            for (int64_t i = 0; i < held; i += N)
                for (int v = 0; v < V; v++) write(i, v);
            for (size_t row = 0; row < best.size(); row++)
                if (bounds[row] != INFINITY && best[row].grow(held, at - origin))
                    bounds[row] = best[row].prune();
        }
        return length;
    }

    // writes N behaviours' scores, from the i-th that are held on, to N rows
    void write(int64_t i, int v) {
        Row<N> lines[N];
#pragma GCC unroll 16
        for (int j = 0; j < N; j++)
            std::memcpy(&lines[j], &scores[(i + j) * kRows + v * N], sizeof lines[j]);
        transpose<N>(lines);
        const int rows = std::min<int>(N, static_cast<int>(best.size()) - v * N);
        for (int r = 0; r < rows; r++)
            if (bounds[v * N + r] != INFINITY) best[v * N + r].write<N>(i, lines[r]);
    }

    // Lists what passes of `size` behaviours, from the i-th behind one on; returns the list's length.
    int list(int64_t at, int64_t i, int size, int64_t end, int listed) {
        score_all(at + i, size, end, scores);
        for (int j = 0; j < size; j++)
            for (int v = 0; v < V; v++) {
                Row<N> value, bound;
                std::memcpy(&value, &scores[j * kRows + v * N], sizeof value);
                std::memcpy(&bound, &bounds[v * N], sizeof bound);
                listed += list_lanes<N>(
                    exceeding<N>(value, bound), value, (i + j) * kRows + v * N, passing + listed,
                    numbers + listed);
            }
        return listed;
    }

    void keep(int row, float score, int64_t behavior) {
        // a score that is no number exceeds even the bound of a row that sees nothing here, or is none
        if (bounds[row] == INFINITY) return;
        if (best[row].push(score, behavior - origin)) bounds[row] = best[row].prune();
    }

    void score_all(int64_t at, int size, int64_t end, float* to) {
        for (size_t b = 0; b < blocks.size(); b++) score(blocks[b], at, size, end, b > 0, to);
    }

    // writes, or adds, a block's part of the scores of `size` behaviours from `at` on
    void score(const Block& block, int64_t at, int size, int64_t end, bool add, float* all) {
        if (!block.projected.empty()) {
            for (int i = 0; i < size; i++) {
                const float* from = &block.projected[block.rows[at + i] * kRows];
                float* to = all + i * kRows;
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
            multiply<true>(block, keys, all);
        else
            multiply<false>(block, keys, all);
    }

    static int64_t row_of(const Block& block, int64_t behavior) {
        return block.rows ? block.rows[behavior] : behavior;
    }

    template <bool kAdd>
    void multiply(const Block& block, const float* const* keys, float* all) {
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
                float* to = all + i * kRows + v * N;
                Row<N> before{};
                if (kAdd) std::memcpy(&before, to, sizeof before);
                before += total[i][v];
                std::memcpy(to, &before, sizeof before);
            }
    }
};
