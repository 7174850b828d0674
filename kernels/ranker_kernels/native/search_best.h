// The k highest of a stream of scores, and the round robin over the rankings of several heads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

// a bit for each of 16 numbers that is at least the bound, or equals it
template <bool kEqual = false>
static inline uint32_t reaching(const uint32_t* numbers, uint32_t bound) {
#if defined(__AVX512F__)
    const __m512i all = _mm512_loadu_si512(numbers), bounds = _mm512_set1_epi32(bound);
    return kEqual ? _mm512_cmpeq_epu32_mask(all, bounds) : _mm512_cmpge_epu32_mask(all, bounds);
#else
    uint32_t bits = 0;
    for (int i = 0; i < 16; i++)
        bits |= uint32_t{kEqual ? numbers[i] == bound : numbers[i] >= bound} << i;
    return bits;
#endif
}

// Writes those of 16 numbers that have a bit, one behind the other; what follows them is overwritten.
static inline void pack(uint32_t* to, const uint32_t* numbers, uint32_t bits) {
#if defined(__AVX512F__)
    const __m512i all = _mm512_loadu_si512(numbers);
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), all));
#else
    for (; bits; bits &= bits - 1) *to++ = numbers[__builtin_ctz(bits)];
#endif
}

// The k highest scores of one row, of equal ones those that came first.
//
// What exceeds the k-th highest seen at the last look is kept, until there is no more room; then the
// k highest of what was kept remain. A score that only equals it cannot be among them: k others
// came before. Scores are compared as integers in their order.
struct Best {
    int64_t k, capacity, count = 0;
    std::vector<uint32_t> keys, places;  // [capacity]; the highest score has the highest key

    explicit Best(int64_t k)
        : k(k), capacity((k + std::max<int64_t>(k, 128) + 15) / 16 * 16),
          keys(capacity), places(capacity) {}

    // returns whether there is no more room
    bool push(float score, int64_t place) {
        keys[count] = key_of(score);
        places[count] = static_cast<uint32_t>(place);
        return ++count == capacity;
    }

    // Leaves the k highest, in the order of their places, and returns the lowest of their scores.
    float prune() {
        clear_rest();
        uint32_t low = ~0u, high = 0u;
        for (int64_t i = 0; i < count; i++) {
            low = std::min(low, keys[i]);
            high = std::max(high, keys[i]);
        }
        // the highest bound that k or more keys reach, found bit by bit behind those that all share
        int bit = low == high ? -1 : 31 - __builtin_clz(low ^ high);
        uint32_t bound = bit == 31 ? 0u : low >> (bit + 1) << (bit + 1);
        int64_t number = count;
        for (; bit >= 0 && number > k; bit--) {
            const uint32_t next = bound | (1u << bit);
            const int64_t fewer = count_reaching(next);
            if (fewer >= k) bound = next, number = fewer;
        }
        return keep(bound, number - k);
    }

    // Writes the places [k], the highest score first; there must be k.
    void rank(std::vector<uint64_t>& scratch, uint32_t* ranked) {
        if (k > kMostCounted) return sort(scratch, ranked);
        clear_rest();
        for (uint32_t i = 0; i < k; i++) {
            const uint32_t key = keys[i];
            uint32_t higher = 0;
            for (uint32_t j = 0; j < round_up_16(k); j++)
                higher += (keys[j] > key) | ((keys[j] == key) & (j < i));
            ranked[higher] = places[i];
        }
    }

   private:
    static constexpr int64_t kMostCounted = 512;  // above, sorting is faster than comparing all pairs

    static int64_t round_up_16(int64_t size) { return (size + 15) / 16 * 16; }

    static uint32_t key_of(float score) {
        score += 0.0f;  // minus zero equals zero
        uint32_t bits;
        std::memcpy(&bits, &score, sizeof bits);
        return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
    }

    static float score_of(uint32_t key) {
        const uint32_t bits = key & 0x80000000u ? key ^ 0x80000000u : ~key;
        float score;
        std::memcpy(&score, &bits, sizeof score);
        return score;
    }

    // zeros are below any key and bound that is compared with them
    void clear_rest() { std::fill(keys.begin() + count, keys.begin() + round_up_16(count), 0u); }

    int64_t count_reaching(uint32_t bound) const {
        int64_t number = 0;
        for (int64_t i = 0; i < count; i += 16) number += __builtin_popcount(reaching(&keys[i], bound));
        return number;
    }

    // Leaves the keys that reach the bound, but of those that equal it not the last `surplus`;
    // returns the lowest score.
    float keep(uint32_t bound, int64_t surplus) {
        int64_t kept = 0, equal = 0;
        if (surplus > 0) equal = std::count(keys.begin(), keys.begin() + count, bound) - surplus;
        uint32_t lowest = ~0u;
        for (int64_t i = 0; i < count; i += 16) {
            // the bound may be zero, which is behind the last too
            const uint32_t given = (1u << std::min<int64_t>(count - i, 16)) - 1;
            uint32_t bits = reaching(&keys[i], bound) & given;
            if (surplus > 0) {
                uint32_t same = bits & reaching<true>(&keys[i], bound);
                bits ^= same;
                for (; same && equal > 0; same &= same - 1, equal--) bits |= same & -same;
            }
            pack(&places[kept], &places[i], bits);
            pack(&keys[kept], &keys[i], bits);
            kept += __builtin_popcount(bits);
        }
        count = kept;
        for (int64_t i = 0; i < count; i++) lowest = std::min(lowest, keys[i]);
        return score_of(lowest);
    }

    void sort(std::vector<uint64_t>& scratch, uint32_t* ranked) const {
        scratch.resize(k);
        for (int64_t i = 0; i < k; i++)
            scratch[i] = static_cast<uint64_t>(~keys[i]) << 32 | places[i];
        std::sort(scratch.begin(), scratch.end());
        for (int64_t i = 0; i < k; i++) ranked[i] = static_cast<uint32_t>(scratch[i]);
    }
};

// Merges the heads' rankings (TWIN, section 4.3): walks over them by turns until there are k
// different places.
struct RoundRobin {
    std::vector<uint64_t> seen;  // a bit for each place

    explicit RoundRobin(int64_t places) : seen((places + 63) / 64, 0u) {}

    // ranked is [heads, k]; writes the k places, ascending, with `first` added
    void merge(const uint32_t* ranked, int64_t heads, int64_t k, int64_t first, int64_t* output) {
        int64_t found = 0;
        for (int64_t turn = 0; found < k; turn++)
            for (int64_t h = 0; h < heads && found < k; h++) {
                const uint32_t place = ranked[h * k + turn];
                uint64_t& word = seen[place >> 6];
                const uint64_t bit = uint64_t{1} << (place & 63);
                found += !(word & bit);
                word |= bit;
            }
        for (size_t w = 0; w < seen.size(); w++)
            for (; seen[w]; seen[w] &= seen[w] - 1)
                *output++ = first + static_cast<int64_t>(w) * 64 + __builtin_ctzll(seen[w]);
    }
};
