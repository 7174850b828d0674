// Gradients dealt into parts by a hash of their rows, so that every row has one thread.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>

#include "parallel.h"

struct Place {
    int64_t row;
    const float* gradient;
};

// 32 bits; rows that differ only in high, or only in low bits, differ in all of them
static inline uint64_t hash_of(int64_t row) {
    return static_cast<uint64_t>(row) * 0x9E3779B97F4A7C15u >> 32;
}

// The places of equal rows are in one part, and every part is in the order of the sequence.
struct RowParts {
    int64_t parts;
    std::unique_ptr<Place[]> places;
    std::vector<int64_t> begins;  // [parts + 1], of the parts in places

    // Of a sequence of `count` places; walk(first, last, use) calls use(row, gradient) for some of them.
    // As many parts as have about `wanted` places each, but enough for all threads.
    template <typename Walk>
    RowParts(Walk walk, int64_t count, int64_t wanted, int64_t threads)
        // not a vector, whose zeros one thread would write
        : places(new Place[count]) {
        const int64_t few = std::max(kFew, std::min(wanted, count / (8 * threads)));
        int bits = 0;
        while (bits < kMostBits && few << bits < count) bits++;
        parts = int64_t{1} << bits;
        const int64_t slices = std::clamp<int64_t>(count / kSlice, 1, threads);
        std::vector<int64_t> next(slices * parts);  // [slices, parts]: counts, then the next place
        const auto each = [&](auto use) {
            run_pieces(slices, threads, [&](int64_t slice, int64_t) {
                int64_t* of_slice = &next[slice * parts];
                walk(
                    slice * count / slices, (slice + 1) * count / slices,
                    [&](int64_t row, const float* gradient) {
                        use(of_slice[hash_of(row) >> (32 - bits)]++, Place{row, gradient});
                    });
            });
        };
        each([](int64_t, Place) {});
        begins.push_back(0);
        for (int64_t part = 0; part < parts; part++) {
            int64_t at = begins.back();
            for (int64_t slice = 0; slice < slices; slice++)
                at += std::exchange(next[slice * parts + part], at);
            begins.push_back(at);
        }
        each([&](int64_t to, Place place) { places[to] = place; });
    }

   private:
    static constexpr int64_t kFew = 1024;    // places of a part
    static constexpr int64_t kSlice = 8192;  // positions that are worth a thread
    static constexpr int kMostBits = 11;     // to more parts at once nothing is written fast
};
