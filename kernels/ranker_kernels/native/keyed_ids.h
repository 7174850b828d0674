// Ids of several keys, each of which reads a table; the rows of all tables are numbered through.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

// Stretches of different lengths as one sequence.
struct Stretches {
    std::vector<int64_t> starts{0};  // in the sequence, and its end

    void add(int64_t length) { starts.push_back(starts.back() + length); }
    int64_t count() const { return starts.back(); }

    // Calls use(stretch, first, last) for the stretches of the places [first, last) of the sequence,
    // with those of each among its own.
    template <typename Use>
    void walk(int64_t first, int64_t last, Use use) const {
        int64_t s = std::upper_bound(starts.begin(), starts.end(), first) - starts.begin() - 1;
        for (; first < last; s++) {
            const int64_t end = std::min(last, starts[s + 1]);
            if (first < end) use(s, first - starts[s], end - starts[s]);
            first = end;
        }
    }
};

// filled by embedding_rows.py, which has the same fields in the same order
struct KeyedIds {
    int64_t keys;
    const int64_t* ids;
    const int64_t *begins, *ends;  // [keys], where the ids of a key lie
    const int64_t* first_rows;     // [keys], where the table of a key begins
    const int64_t* sizes;          // [keys], rows of the table of a key

    int64_t count(int64_t key) const { return ends[key] - begins[key]; }
    const int64_t* ids_of(int64_t key) const { return ids + begins[key]; }

    // the ids of all keys as one sequence
    Stretches stretches() const {
        Stretches all;
        for (int64_t key = 0; key < keys; key++) all.add(count(key));
        return all;
    }
};
