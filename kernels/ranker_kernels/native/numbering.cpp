// Distinct ids of a column on CPUs, and the numbers of rows that are flagged.
//
// Ids between the lowest and the highest have a flag each: a byte, which is set without being read,
// since ids repeat and a bit would have to wait for the one before. Of 64 flags a table keeps the bits
// and how many come before: the place of an id is that number and those of the lower bits.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "parallel.h"

namespace {

constexpr uint64_t kMostFlags = 16;  // for each id of the column

struct Word {
    uint64_t bits;
    int64_t before;
};

// a bit for each of 8 bytes that are 0 or 1, the first byte's lowest
uint64_t pack_flags(const uint8_t* flags) {
    uint64_t bytes = 0;
    for (int i = 0; i < 8; i++) bytes |= uint64_t{flags[i]} << (8 * i);
    return bytes * 0x0102040810204080u >> 56;
}

}  // namespace

// Writes the distinct ones of ids [count], ascending, to found [count], and the place of each id among
// them to places [count]. Returns their number; -1 where memory ran out, -2 where ids are too far
// apart for a table.
extern "C" int64_t distinct_ids(const int64_t* ids, int64_t count, int64_t* found, int64_t* places) {
    if (count == 0) return 0;
    int64_t low = ids[0], high = ids[0];
    for (int64_t i = 1; i < count; i++) low = std::min(low, ids[i]), high = std::max(high, ids[i]);
    const uint64_t last = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
    if (last / kMostFlags >= static_cast<uint64_t>(count)) return -2;
    int64_t number = 0;
    const int failed = guarded([&] {
        std::vector<Word> table(last / 64 + 1);
        std::vector<uint8_t> flags(64 * table.size());
        for (int64_t i = 0; i < count; i++) flags[ids[i] - low] = 1;
        for (size_t w = 0; w < table.size(); w++) {
            Word word{0, number};
            for (int i = 0; i < 64; i += 8) word.bits |= pack_flags(&flags[64 * w + i]) << i;
            for (uint64_t bits = word.bits; bits; bits &= bits - 1)
                found[number++] = low + static_cast<int64_t>(64 * w) + __builtin_ctzll(bits);
            table[w] = word;
        }
        for (int64_t i = 0; i < count; i++) {
            const uint64_t id = ids[i] - low, lower = (uint64_t{1} << (id % 64)) - 1;
            const Word& word = table[id / 64];
            places[i] = word.before + __builtin_popcountll(word.bits & lower);
        }
    });
    return failed ? -1 : number;
}

// Writes the rows of flags [count] that are not 0 to rows [count], and how many come before each row,
// and before the end, to places [count + 1]. Returns their number.
extern "C" int64_t number_flags(
    const uint8_t* flags, int64_t count, int64_t* rows, int64_t* places) {
    int64_t number = 0;
    for (int64_t i = 0; i < count; i++) {
        places[i] = number;
        rows[number] = i;  // the next one is written over it where there is no flag
        number += flags[i] != 0;
    }
    places[count] = number;
    return number;
}
