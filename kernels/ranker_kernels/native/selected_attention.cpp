// Multi-head attention of candidates to selected rows on CPUs, forward and backward, for float32: the
// same function as selected.py.
//
// The rows of one candidate are gathered into cache, padded to whole vectors, and transposed, so that
// vectors have a lane for each pick; the backward gathers them again. Gradients of rows are added up by ranges of rows, in the order of the candidates, so
// the result does not depend on the number of threads.

#include <algorithm>
#include <cmath>

#include "attention_problem.h"
#include "matmul.h"
#include "parallel.h"
#include "transpose.h"

namespace {

constexpr int64_t kBlock = 256;  // candidates whose weights are held at once
constexpr size_t kAhead = 16;    // rows that are asked of memory before they are needed

// asks memory for the row of one of the next places
static inline void prefetch_ahead(
    const float* matrix, int64_t width, const std::vector<int64_t>& places, size_t at) {
    if (at + kAhead >= places.size()) return;
    const float* row = matrix + places[at + kAhead] * width;
    for (int64_t v = 0; v < width; v += 16) __builtin_prefetch(row + v);
}

// Rows that one candidate selected from a matrix, and their columns.
struct Selected {
    const float* matrix;  // [rows, width]
    int64_t width, pad, picks_pad;
    Floats rows, columns;  // [picks_pad, pad] and [pad, picks_pad]; nothing of use behind the picks

    Selected(const float* matrix, int64_t width, int64_t picks_pad)
        : matrix(matrix), width(width), pad(round_up(width)), picks_pad(picks_pad),
          rows(picks_pad * pad, 0.0f), columns(pad * picks_pad) {}

    void gather(const std::vector<int64_t>& places) {
        const int64_t count = static_cast<int64_t>(places.size());
        for (int64_t i = 0; i < count; i++) {
            prefetch_ahead(matrix, width, places, i);
            copy_row(matrix + places[i] * width, &rows[i * pad], width);
        }
        for (int64_t i = 0; i < count; i += kLanes)
            for (int64_t d = 0; d < pad; d += kLanes) {
                Vec lines[kLanes];
#pragma GCC unroll 16
                for (int j = 0; j < kLanes; j++) lines[j] = load(&rows[(i + j) * pad + d]);
                transpose<kLanes>(lines);
#pragma GCC unroll 16
                for (int j = 0; j < kLanes; j++) store(&columns[(d + j) * picks_pad + i], lines[j]);
            }
    }
};

// One candidate and what it selected. Scores and weights are [heads, lanes], a lane for each pick.
struct Candidate {
    const AttentionProblem& given;
    int64_t lanes;                  // as many as picks, or more
    int64_t number = 0, count = 0;  // the candidate, and its rows
    std::vector<int64_t> places;    // [count]
    Selected values, own_keys;

    explicit Candidate(const AttentionProblem& given)
        : given(given), lanes(round_up(given.columns)), values(given.values, given.width, lanes),
          own_keys(given.keys, given.dim, given.keys ? lanes : 0) {}

    const Selected& keys() const { return given.keys ? own_keys : values; }

    void gather(int64_t candidate) {
        number = candidate;
        places.clear();
        for (int64_t i = 0; i < given.columns; i++) {
            const int64_t place = given.seen[candidate * given.columns + i];
            if (place >= 0) places.push_back(place);
        }
        count = static_cast<int64_t>(places.size());
        values.gather(places);
        if (given.keys) own_keys.gather(places);
    }

    // writes the products of a candidate's rows in [candidates, heads, width] with what is selected
    void multiply_columns(const float* matrix, int64_t width, const Selected& by, float* to) const {
        multiply<false>(
            {matrix + number * given.heads * width, width, 1}, by.columns.data(), lanes, to, lanes,
            given.heads, round_up(count), width);
    }

    void score(float* scores) const {
        multiply_columns(given.query, given.dim, keys(), scores);
        if (!given.bias) return;
        for (int64_t i = 0; i < count; i++)
            for (int64_t h = 0; h < given.heads; h++)
                scores[h * lanes + i] += given.bias[places[i] * given.heads + h];
    }

    // scores of a head become exp(score - base), and zeros behind them; returns their sum
    float exponentiate(float* scores, float base) const {
        for (int64_t i = 0; i < count; i += kLanes) store(scores + i, exp(load(scores + i) - base));
        std::fill(scores + count, scores + round_up(count), 0.0f);
        Vec total{};
        for (int64_t i = 0; i < count; i += kLanes) total += load(scores + i);
        return sum(total);
    }
};

// Writes output and the log of the sum of exponentials of one candidate.
struct Forward {
    Candidate candidate;
    float *output, *normalizer;
    Floats scores;  // [heads, lanes]
    Floats pooled;  // [heads, width padded]
    std::vector<float> total;

    Forward(const AttentionProblem& given, float* output, float* normalizer)
        : candidate(given), output(output), normalizer(normalizer),
          scores(given.heads * candidate.lanes), pooled(given.heads * candidate.values.pad),
          total(given.heads) {}

    void run(int64_t number) {
        const AttentionProblem& given = candidate.given;
        const int64_t lanes = candidate.lanes, pad = candidate.values.pad;
        candidate.gather(number);
        if (candidate.count == 0) return;  // zeros already
        candidate.score(scores.data());
        for (int64_t h = 0; h < given.heads; h++) {
            const float highest = find_highest(&scores[h * lanes]);
            total[h] = candidate.exponentiate(&scores[h * lanes], highest);
            normalizer[number * given.heads + h] = highest + std::log(total[h]);
        }
        multiply<false>(
            {scores.data(), lanes, 1}, candidate.values.rows.data(), pad, pooled.data(), pad,
            given.heads, pad, candidate.count);
        for (int64_t h = 0; h < given.heads; h++) {
            float* to = output + (number * given.heads + h) * given.width;
            for (int64_t v = 0; v < given.width; v++) to[v] = pooled[h * pad + v] / total[h];
        }
    }

   private:
    float find_highest(float* scores) const {
        const int64_t count = candidate.count;
        std::fill(scores + count, scores + round_up(count), scores[0]);
        Vec highest = load(scores);
        for (int64_t i = kLanes; i < count; i += kLanes) {
            const Vec some = load(scores + i);
            // what is no number ends up in the sum of exponentials
            highest = some <= highest ? highest : some;
        }
        float of_lane[kLanes];
        store(of_lane, highest);
        return *std::max_element(of_lane, of_lane + kLanes);
    }
};

// The weights of one candidate, the gradients of its scores, and of its query.
struct Backward {
    Candidate candidate;
    AttentionUpstream upstream;
    float* query;     // [candidates, heads, dim], written
    Floats of_query;  // [heads, dim padded]

    Backward(const AttentionProblem& given, AttentionUpstream upstream, float* query)
        : candidate(given), upstream(upstream), query(query),
          of_query(given.heads * round_up(given.dim)) {}

    // weights and changes [heads, lanes] of a candidate, -1 left out, in the order of its picks
    void run(int64_t number, float* weights, float* changes) {
        const AttentionProblem& given = candidate.given;
        const int64_t heads = given.heads, lanes = candidate.lanes, dim_pad = round_up(given.dim);
        candidate.gather(number);
        candidate.score(weights);
        candidate.multiply_columns(upstream.gradient, given.width, candidate.values, changes);
        for (int64_t h = 0; h < heads; h++) {
            const int64_t row = number * heads + h;
            candidate.exponentiate(&weights[h * lanes], upstream.normalizer[row]);
            float delta = 0.0f;  // <gradient, output>
            for (int64_t v = row * given.width; v < (row + 1) * given.width; v++)
                delta += upstream.gradient[v] * upstream.output[v];
            for (int64_t at = h * lanes; at < h * lanes + candidate.count; at += kLanes)
                store(&changes[at], load(&weights[at]) * (load(&changes[at]) - delta));
        }
        multiply<false>(
            {changes, lanes, 1}, candidate.keys().rows.data(), candidate.keys().pad,
            of_query.data(), dim_pad, heads, dim_pad, candidate.count);
        for (int64_t h = 0; h < heads; h++)
            std::copy_n(&of_query[h * dim_pad], given.dim, query + (number * heads + h) * given.dim);
    }
};

// Adds the gradients of rows [first, last).
struct RowGradients {
    const AttentionProblem& given;
    const float* gradient;         // [candidates, heads, width]
    AttentionGradients gradients;
    int64_t first, last;
    int64_t lanes, width_pad, dim_pad;
    Floats gradient_rows, query_rows;  // [heads, width_pad], and [heads, dim_pad] or as wide
    Floats some_weights, some_changes; // [heads, lanes] of the picks in range
    Floats of_values, of_keys;
    std::vector<int64_t> places;

    RowGradients(
        const AttentionProblem& given, const float* gradient, AttentionGradients gradients,
        int64_t first, int64_t last)
        : given(given), gradient(gradient), gradients(gradients), first(first), last(last),
          lanes(round_up(given.columns)), width_pad(round_up(given.width)),
          dim_pad(given.keys ? round_up(given.dim) : width_pad),
          gradient_rows(given.heads * width_pad, 0.0f), query_rows(given.heads * dim_pad, 0.0f),
          some_weights(given.heads * lanes), some_changes(given.heads * lanes),
          of_values(given.columns * width_pad), of_keys(given.keys ? given.columns * dim_pad : 0) {}

    void add(int64_t candidate, const float* weights, const float* changes) {
        const int64_t heads = given.heads, found = choose(candidate, weights, changes);
        const int64_t count = static_cast<int64_t>(places.size());
        if (count == 0) return;
        if (count < found) weights = some_weights.data(), changes = some_changes.data();
        for (int64_t h = 0; h < heads; h++) {
            const int64_t row = candidate * heads + h;
            std::copy_n(gradient + row * given.width, given.width, &gradient_rows[h * width_pad]);
            std::copy_n(given.query + row * given.dim, given.dim, &query_rows[h * dim_pad]);
        }
        multiply<false>(
            {weights, 1, lanes}, gradient_rows.data(), width_pad, of_values.data(), width_pad,
            count, width_pad, heads);
        if (given.keys)
            multiply<false>(
                {changes, 1, lanes}, query_rows.data(), dim_pad, of_keys.data(), dim_pad, count,
                dim_pad, heads);
        else
            multiply<true>(
                {changes, 1, lanes}, query_rows.data(), dim_pad, of_values.data(), width_pad,
                count, width_pad, heads);
        for (int64_t i = 0; i < count; i++) {
            prefetch_ahead(gradients.values, given.width, places, i);
            add_row(gradients.values, places[i], &of_values[i * width_pad], given.width);
            if (given.keys) add_row(gradients.keys, places[i], &of_keys[i * dim_pad], given.dim);
            for (int64_t h = 0; given.bias && h < heads; h++)
                gradients.bias[places[i] * heads + h] += changes[h * lanes + i];
        }
    }

   private:
    // Lists the places in range, copies what belongs to them, and returns how many there are in all.
    int64_t choose(int64_t candidate, const float* weights, const float* changes) {
        places.clear();
        int64_t at = 0;
        for (int64_t i = 0; i < given.columns; i++) {
            const int64_t place = given.seen[candidate * given.columns + i];
            if (place < 0) continue;
            if (first <= place && place < last) {
                const int64_t to = static_cast<int64_t>(places.size());
                // as they are where everything is in range
                for (int64_t h = 0; (first > 0 || last < given.rows) && h < given.heads; h++) {
                    some_weights[h * lanes + to] = weights[h * lanes + at];
                    some_changes[h * lanes + to] = changes[h * lanes + at];
                }
                places.push_back(place);
            }
            at++;
        }
        return at;
    }

    static void add_row(float* matrix, int64_t row, const float* __restrict from, int64_t width) {
        float* __restrict to = matrix + row * width;
        for (int64_t v = 0; v < width; v++) to[v] += from[v];
    }
};

int64_t threads_of(const AttentionProblem& given) {
    return std::clamp<int64_t>(given.candidates / 16, 1, given.threads);
}

}  // namespace

// Writes output [candidates, heads, width] and normalizer [candidates, heads] of every candidate that
// selected something; the others are the caller's. Returns 0, 1 where memory ran out, or kOutside.
extern "C" int attend(const AttentionProblem* given, float* output, float* normalizer) {
    if (!given->selects_rows()) return kOutside;
    return guarded([&] {
        const int64_t threads = threads_of(*given);
        std::vector<Forward> workers(threads, Forward(*given, output, normalizer));
        run_pieces(given->candidates, threads, [&](int64_t candidate, int64_t worker) {
            workers[worker].run(candidate);
        });
    });
}

// Writes the gradient of the query, and adds to the others. Returns as above.
extern "C" int differentiate(
    const AttentionProblem* given, const AttentionUpstream* upstream,
    const AttentionGradients* gradients) {
    if (!given->selects_rows()) return kOutside;
    return guarded([&] {
        const int64_t threads = threads_of(*given);
        // one thread adds up a candidate's gradients while its weights are in cache
        const int64_t block = threads == 1 ? 1 : kBlock;
        const int64_t held = given->heads * round_up(given->columns);
        Floats weights(block * held), changes(block * held);
        std::vector<Backward> workers(threads, Backward(*given, *upstream, gradients->query));
        std::vector<RowGradients> ranges;
        for (int64_t i = 0; i < threads; i++)
            ranges.emplace_back(
                *given, upstream->gradient, *gradients, i * given->rows / threads,
                (i + 1) * given->rows / threads);
        for (int64_t begin = 0; begin < given->candidates; begin += block) {
            const int64_t size = std::min(block, given->candidates - begin);
            run_pieces(size, threads, [&](int64_t i, int64_t worker) {
                workers[worker].run(begin + i, weights.data() + i * held, changes.data() + i * held);
            });
            run_pieces(threads, threads, [&](int64_t range, int64_t) {
                for (int64_t i = 0; i < size; i++)
                    ranges[range].add(
                        begin + i, weights.data() + i * held, changes.data() + i * held);
            });
        }
    });
}
