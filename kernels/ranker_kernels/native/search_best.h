// The k highest of a stream of scores, and the round robin over the rankings of several heads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "transpose.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

enum class Order { kAbove, kReaching, kEqual };

template <Order kOrder>
static inline bool stands(uint32_t number, uint32_t bound) {
    if constexpr (kOrder == Order::kAbove) return number > bound;
    if constexpr (kOrder == Order::kReaching) return number >= bound;
    return number == bound;
}

// a bit for each of 16 numbers that stands so to the bound
template <Order kOrder>
static inline uint32_t matching(const uint32_t* numbers, uint32_t bound) {
#if defined(__AVX512F__)
    const __m512i all = _mm512_loadu_si512(numbers), bounds = _mm512_set1_epi32(bound);
    if constexpr (kOrder == Order::kAbove) return _mm512_cmpgt_epu32_mask(all, bounds);
    if constexpr (kOrder == Order::kReaching) return _mm512_cmpge_epu32_mask(all, bounds);
    return _mm512_cmpeq_epu32_mask(all, bounds);
#else
    uint32_t bits = 0;
    for (int i = 0; i < 16; i++) bits |= uint32_t{stands<kOrder>(numbers[i], bound)} << i;
    return bits;
#endif
}

// how many of 16 numbers stand so to the bound
template <Order kOrder>
static inline int64_t count_matching(const uint32_t* numbers, uint32_t bound) {
#if defined(__AVX512F__)
    return __builtin_popcount(matching<kOrder>(numbers, bound));
#else
    uint32_t number = 0;
    for (int i = 0; i < 16; i++) number += stands<kOrder>(numbers[i], bound);
    return number;
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
// First everything is kept, then what exceeds the k-th highest seen at the last look; when there is no
// more room, the k highest of what was kept remain. A score that only equals the bound cannot be among
// them: k others came before. Scores are compared as integers in their order.
struct Best {
    static constexpr int64_t kFirst = 1024;  // kept before the first look, or more with a large k

    int64_t k, count = 0;
    int64_t room = 0;                    // looks again when so many are kept
    std::vector<uint32_t> keys, places;  // the highest score has the highest key

    explicit Best(int64_t k) : k(k) {
        clear();
        keys.resize(room + residues()), places.resize(keys.size());
    }

    void clear() { count = 0, room = std::max(kFirst, room_behind()); }

    int64_t free() const { return room - count; }

    // returns whether there is no more room
    bool push(float score, int64_t place) {
        keys[count] = key_of(score);
        places[count] = static_cast<uint32_t>(place);
        return ++count == room;
    }

    // Writes N scores behind those that are kept; they do not count before `grow`.
    template <int N>
    void write(int64_t behind, Row<N> scores) {
        scores += Row<N>{};  // as key_of
        typename IntLanes<N>::Unsigned bits;
        std::memcpy(&bits, &scores, sizeof bits);
        bits ^= (bits >> 31) * 0x7fffffffu | 0x80000000u;
        std::memcpy(&keys[count + behind], &bits, sizeof bits);
    }

    // counts scores of `size` places from one on, and returns whether there is no more room
    bool grow(int64_t size, int64_t place) {
        for (int64_t i = 0; i < size; i++) places[count + i] = static_cast<uint32_t>(place + i);
        return (count += size) == room;
    }

    // Leaves the k highest, in the order of their places, and returns the lowest of their scores.
    float prune() {
        if (count >= 4 * residues()) thin();
        room = room_behind();
        clear_rest(count, round_up_16(count));
        const auto [bound, number] = find_kth(keys, count);
        return keep(bound, number - k);
    }

    // Writes the places [k], the highest score first; there must be k.
    void rank(std::vector<uint64_t>& scratch, uint32_t* ranked) {
        if (k > kMostCounted) return sort(scratch, ranked);
        clear_rest(k, round_up_16(k));
        for (int64_t i = 0; i < k; i++) {
            const uint32_t key = keys[i];
            const int64_t own = i / 16 * 16;
            int64_t before = __builtin_popcount(
                matching<Order::kEqual>(&keys[own], key) & ((1u << (i - own)) - 1));
            for (int64_t j = 0; j < own; j += 16)
                before += count_matching<Order::kReaching>(&keys[j], key);
            for (int64_t j = own; j < k; j += 16)
                before += count_matching<Order::kAbove>(&keys[j], key);
            ranked[before] = places[i];
        }
    }

   private:
    static constexpr int64_t kMostCounted = 512;  // above, sorting is faster than comparing all pairs

    static int64_t round_up_16(int64_t size) { return (size + 15) / 16 * 16; }

    // a look costs about as much as keeping so many more
    int64_t room_behind() const { return round_up_16(k + std::max<int64_t>(k, 128)); }

    // of the position, whose highest keys are looked at first
    int64_t residues() const { return round_up_16(k + k / 4); }

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
    void clear_rest(int64_t begin, int64_t end) {
        std::fill(keys.begin() + begin, keys.begin() + end, 0u);
    }

    // Drops most keys that are not among the k highest. The k-th highest of the residues' highest keys
    // is a lower bound: k residues have a key that reaches it.
    void thin() {
        const int64_t step = residues(), whole = (count + step - 1) / step * step;
        clear_rest(count, whole);
        std::vector<uint32_t> highest(keys.begin(), keys.begin() + step);
        for (int64_t at = step; at < whole; at += step)
            for (int64_t i = 0; i < step; i++) highest[i] = std::max(highest[i], keys[at + i]);
        keep(find_kth(highest, step).first, 0);
    }

    // Returns the highest bound that k or more of the numbers reach, and how many do.
    std::pair<uint32_t, int64_t> find_kth(const std::vector<uint32_t>& numbers, int64_t size) const {
        uint32_t low = ~0u, high = 0u;
        for (int64_t i = 0; i < size; i++) {
            low = std::min(low, numbers[i]);
            high = std::max(high, numbers[i]);
        }
        // bit by bit behind those that all share
        int bit = low == high ? -1 : 31 - __builtin_clz(low ^ high);
        uint32_t bound = bit < 0 ? low : bit == 31 ? 0u : low >> (bit + 1) << (bit + 1);
        int64_t number = size;
        for (; bit >= 0 && number > k; bit--) {
            const uint32_t next = bound | (1u << bit);
            int64_t fewer = 0;
            for (int64_t i = 0; i < size; i += 16)
                fewer += count_matching<Order::kReaching>(&numbers[i], next);
            if (fewer >= k) bound = next, number = fewer;
        }
        return {bound, number};
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
            uint32_t bits = matching<Order::kReaching>(&keys[i], bound) & given;
            if (surplus > 0) {
                uint32_t same = bits & matching<Order::kEqual>(&keys[i], bound);
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
