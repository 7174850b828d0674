// Ids of several keys, each of which reads a table; the rows of all tables are numbered through.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

// filled by embedding_rows.py, which has the same fields in the same order
struct KeyedIds {
    int64_t keys;
    const int64_t* ids;
    const int64_t *begins, *ends;  // [keys], where the ids of a key lie
    const int64_t* first_rows;     // [keys], where the table of a key begins
    const int64_t* sizes;          // [keys], rows of the table of a key
};

// The ids of all keys as one sequence.
struct IdSequence {
    const KeyedIds& keyed;
    std::vector<int64_t> starts;  // [keys + 1], of the keys in the sequence

    explicit IdSequence(const KeyedIds& keyed) : keyed(keyed), starts{0} {
        for (int64_t k = 0; k < keyed.keys; k++)
            starts.push_back(starts.back() + keyed.ends[k] - keyed.begins[k]);
    }

    int64_t count() const { return starts.back(); }

    // Calls use(key, first, last) for the keys of the places [first, last) of the sequence, with
    // those of each among the key's own ids.
    template <typename Use>
    void walk(int64_t first, int64_t last, Use use) const {
        int64_t key = std::upper_bound(starts.begin(), starts.end(), first) - starts.begin() - 1;
        for (; first < last; key++) {
            const int64_t end = std::min(last, starts[key + 1]);
            if (first < end) use(key, first - starts[key], end - starts[key]);
            first = end;
        }
    }

    const int64_t* ids_of(int64_t key) const { return keyed.ids + keyed.begins[key]; }
};
