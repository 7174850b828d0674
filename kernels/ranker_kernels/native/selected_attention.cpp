// Multi-head attention of candidates to selected rows on CPUs, forward and backward, for float32: the
// same function as selected.py.
//
// The rows of one candidate are gathered into cache, padded to whole vectors; the backward gathers
// them again. Gradients of rows are added up by ranges of rows, in the order of the candidates, so
// the result does not depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <limits>

#include "matmul.h"
#include "parallel.h"

namespace {

constexpr int64_t kBlock = 256;  // candidates whose weights are held at once

// filled by target_attention/compiled.py, which has the same fields in the same order
struct Selection {
    int64_t candidates, heads, dim, width, picks, rows, threads;
    const float* query;    // [candidates, heads, dim]
    const float* keys;     // [rows, dim], or null: the first columns of the values
    const float* values;   // [rows, width]
    const float* bias;     // [rows, heads], or null
    const int64_t* index;  // [candidates, picks], -1 for none
};

// One candidate: what it selected, and the weights of its heads.
struct Candidate {
    const Selection& given;
    int64_t heads_pad, dim_pad, width_pad;
    int64_t number = 0, count = 0;  // the candidate, and its rows
    std::vector<int64_t> places;    // [count]
    Floats values, own_keys;  // [count, width_pad], and [count, dim_pad] if there are keys
    Floats query_t;           // [dim, heads_pad]
    Floats scores;            // [count, heads_pad], then weights
    std::vector<float> total; // [heads]

    explicit Candidate(const Selection& given)
        : given(given), heads_pad(round_up(given.heads)), dim_pad(round_up(given.dim)),
          width_pad(round_up(given.width)), values(given.picks * width_pad, 0.0f),
          own_keys(given.keys ? given.picks * dim_pad : 0, 0.0f),
          query_t(given.dim * heads_pad, 0.0f), scores(given.picks * heads_pad), total(given.heads) {}

    void gather(int64_t candidate) {
        number = candidate;
        places.clear();
        for (int64_t i = 0; i < given.picks; i++) {
            const int64_t place = given.index[candidate * given.picks + i];
            if (place < 0) continue;
            const int64_t at = static_cast<int64_t>(places.size());
            std::copy_n(given.values + place * given.width, given.width, &values[at * width_pad]);
            if (given.keys)
                std::copy_n(given.keys + place * given.dim, given.dim, &own_keys[at * dim_pad]);
            places.push_back(place);
        }
        count = static_cast<int64_t>(places.size());
        for (int64_t h = 0; h < given.heads; h++)
            for (int64_t d = 0; d < given.dim; d++)
                query_t[d * heads_pad + h] = given.query[(number * given.heads + h) * given.dim + d];
    }

    const float* keys() const { return given.keys ? own_keys.data() : values.data(); }
    int64_t key_row() const { return given.keys ? dim_pad : width_pad; }

    void score() {
        multiply<false>(
            {keys(), key_row(), 1}, query_t.data(), heads_pad, scores.data(), heads_pad, count,
            heads_pad, given.dim);
        if (!given.bias) return;
        for (int64_t i = 0; i < count; i++)
            for (int64_t h = 0; h < given.heads; h++)
                scores[i * heads_pad + h] += given.bias[places[i] * given.heads + h];
    }

    // scores become exp(score - of its head)
    void exponentiate(const float* of_head) {
        for (int64_t i = 0; i < count; i++)
            for (int64_t h = 0; h < given.heads; h++) scores[i * heads_pad + h] -= of_head[h];
        for (int64_t at = 0; at < count * heads_pad; at += kLanes)
            store(&scores[at], exp(load(&scores[at])));
    }
};

// Writes output and the log of the sum of exponentials of one candidate.
struct Forward {
    Candidate candidate;
    float *output, *normalizer;
    Floats pooled;  // [heads, width_pad]
    std::vector<float> highest;

    Forward(const Selection& given, float* output, float* normalizer)
        : candidate(given), output(output), normalizer(normalizer),
          pooled(given.heads * round_up(given.width)), highest(given.heads) {}

    void run(int64_t number) {
        const Selection& given = candidate.given;
        const int64_t heads = given.heads, pad = candidate.heads_pad;
        candidate.gather(number);
        if (candidate.count == 0) return;  // zeros already
        candidate.score();
        std::fill(highest.begin(), highest.end(), -std::numeric_limits<float>::infinity());
        for (int64_t i = 0; i < candidate.count; i++)
            for (int64_t h = 0; h < heads; h++) {
                const float score = candidate.scores[i * pad + h];
                // not std::max, which would hide a NaN
                if (!(score <= highest[h])) highest[h] = score;
            }
        candidate.exponentiate(highest.data());
        std::fill(candidate.total.begin(), candidate.total.end(), 0.0f);
        for (int64_t i = 0; i < candidate.count; i++)
            for (int64_t h = 0; h < heads; h++) candidate.total[h] += candidate.scores[i * pad + h];
        multiply<false>(
            {candidate.scores.data(), 1, pad}, candidate.values.data(), candidate.width_pad,
            pooled.data(), candidate.width_pad, heads, candidate.width_pad, candidate.count);
        for (int64_t h = 0; h < heads; h++) {
            const float* from = &pooled[h * candidate.width_pad];
            float* to = output + (number * heads + h) * given.width;
            for (int64_t v = 0; v < given.width; v++) to[v] = from[v] / candidate.total[h];
            normalizer[number * heads + h] = highest[h] + std::log(candidate.total[h]);
        }
    }
};

struct Upstream {
    const float *gradient, *output, *normalizer;
    float* query;  // [candidates, heads, dim], written
};

// The weights of one candidate, the gradients of its scores, and of its query.
struct Backward {
    Candidate candidate;
    Upstream upstream;
    Floats gradient_t, of_query;  // [width, heads_pad], and [heads, dim_pad]
    Floats change;                // [count, heads_pad]

    Backward(const Selection& given, Upstream upstream)
        : candidate(given), upstream(upstream),
          gradient_t(given.width * round_up(given.heads), 0.0f),
          of_query(given.heads * round_up(given.dim)), change(given.picks * round_up(given.heads)) {}

    // weights and changes [picks, heads] of a candidate, -1 left out, in the order of its picks
    void run(int64_t number, float* weights, float* changes) {
        const Selection& given = candidate.given;
        const int64_t heads = given.heads, pad = candidate.heads_pad;
        candidate.gather(number);
        candidate.score();
        candidate.exponentiate(upstream.normalizer + number * heads);
        std::vector<float>& delta = candidate.total;  // <gradient, output> of each head
        for (int64_t h = 0; h < heads; h++) {
            const int64_t at = (number * heads + h) * given.width;
            delta[h] = 0.0f;
            for (int64_t v = 0; v < given.width; v++) {
                gradient_t[v * pad + h] = upstream.gradient[at + v];
                delta[h] += upstream.gradient[at + v] * upstream.output[at + v];
            }
        }
        multiply<false>(
            {candidate.values.data(), candidate.width_pad, 1}, gradient_t.data(), pad,
            change.data(), pad, candidate.count, pad, given.width);
        for (int64_t i = 0; i < candidate.count; i++)
            for (int64_t h = 0; h < heads; h++) {
                const float weight = candidate.scores[i * pad + h];
                float& value = change[i * pad + h];
                value = weight * (value - delta[h]);
                weights[i * heads + h] = weight;
                changes[i * heads + h] = value;
            }
        multiply<false>(
            {change.data(), 1, pad}, candidate.keys(), candidate.key_row(), of_query.data(),
            candidate.dim_pad, heads, candidate.dim_pad, candidate.count);
        for (int64_t h = 0; h < heads; h++)
            std::copy_n(
                &of_query[h * candidate.dim_pad], given.dim,
                upstream.query + (number * heads + h) * given.dim);
    }
};

// Adds the gradients of rows [first, last).
struct RowGradients {
    const Selection& given;
    const float* gradient;  // [candidates, heads, width]
    float *keys, *values, *bias;  // keys: null where they are columns of the values
    int64_t first, last;
    int64_t width_pad, dim_pad;
    Floats gradient_rows, query_rows;  // [heads, width_pad], and [heads, dim_pad] or as wide
    Floats weight_rows, change_rows;   // [picks, heads]
    Floats of_values, of_keys;
    std::vector<int64_t> places;

    RowGradients(
        const Selection& given, const float* gradient, float* keys, float* values, float* bias,
        int64_t first, int64_t last)
        : given(given), gradient(gradient), keys(keys), values(values), bias(bias), first(first),
          last(last), width_pad(round_up(given.width)),
          dim_pad(given.keys ? round_up(given.dim) : width_pad),
          gradient_rows(given.heads * width_pad, 0.0f), query_rows(given.heads * dim_pad, 0.0f),
          weight_rows(given.picks * given.heads), change_rows(given.picks * given.heads),
          of_values(given.picks * width_pad), of_keys(given.keys ? given.picks * dim_pad : 0) {}

    void add(int64_t candidate, const float* weights, const float* changes) {
        const int64_t heads = given.heads;
        places.clear();
        for (int64_t i = 0, at = 0; i < given.picks; i++) {
            const int64_t place = given.index[candidate * given.picks + i];
            if (place < 0) continue;
            if (first <= place && place < last) {
                const int64_t to = static_cast<int64_t>(places.size()) * heads;
                std::copy_n(weights + at * heads, heads, &weight_rows[to]);
                std::copy_n(changes + at * heads, heads, &change_rows[to]);
                places.push_back(place);
            }
            at++;
        }
        const int64_t count = static_cast<int64_t>(places.size());
        if (count == 0) return;
        for (int64_t h = 0; h < heads; h++) {
            const int64_t row = candidate * heads + h;
            std::copy_n(gradient + row * given.width, given.width, &gradient_rows[h * width_pad]);
            std::copy_n(given.query + row * given.dim, given.dim, &query_rows[h * dim_pad]);
        }
        multiply<false>(
            {weight_rows.data(), heads, 1}, gradient_rows.data(), width_pad, of_values.data(),
            width_pad, count, width_pad, heads);
        if (given.keys)
            multiply<false>(
                {change_rows.data(), heads, 1}, query_rows.data(), dim_pad, of_keys.data(),
                dim_pad, count, dim_pad, heads);
        else
            multiply<true>(
                {change_rows.data(), heads, 1}, query_rows.data(), dim_pad, of_values.data(),
                width_pad, count, width_pad, heads);
        for (int64_t i = 0; i < count; i++) {
            add_row(values + places[i] * given.width, &of_values[i * width_pad], given.width);
            if (given.keys) add_row(keys + places[i] * given.dim, &of_keys[i * dim_pad], given.dim);
            if (bias) add_row(bias + places[i] * heads, &change_rows[i * heads], heads);
        }
    }

   private:
    static void add_row(float* __restrict to, const float* __restrict from, int64_t width) {
        for (int64_t v = 0; v < width; v++) to[v] += from[v];
    }
};

}  // namespace

// Writes output [candidates, heads, width] and normalizer [candidates, heads] of every candidate that
// selected something; the others are the caller's. Returns 0, or 1 where memory ran out.
extern "C" int selected_forward(const Selection* given, float* output, float* normalizer) {
    return guarded([&] {
        const int64_t threads = std::clamp<int64_t>(given->candidates / 16, 1, given->threads);
        std::vector<Forward> workers(threads, Forward(*given, output, normalizer));
        run_pieces(given->candidates, threads, [&](int64_t candidate, int64_t worker) {
            workers[worker].run(candidate);
        });
    });
}

// Writes the gradient of the query, and adds to those of keys (null where they are columns of the
// values), values and bias (null where there is none). Returns as above.
extern "C" int selected_backward(
    const Selection* given, const float* gradient, const float* output, const float* normalizer,
    float* query, float* keys, float* values, float* bias) {
    return guarded([&] {
        const int64_t threads = std::clamp<int64_t>(given->candidates / 16, 1, given->threads);
        const int64_t held = given->picks * given->heads;
        std::vector<float> weights(kBlock * held), changes(kBlock * held);
        const Upstream upstream{gradient, output, normalizer, query};
        std::vector<Backward> workers(threads, Backward(*given, upstream));
        std::vector<RowGradients> ranges;
        for (int64_t i = 0; i < threads; i++)
            ranges.emplace_back(
                *given, gradient, keys, values, bias, i * given->rows / threads,
                (i + 1) * given->rows / threads);
        for (int64_t begin = 0; begin < given->candidates; begin += kBlock) {
            const int64_t size = std::min(kBlock, given->candidates - begin);
            run_pieces(size, threads, [&](int64_t i, int64_t worker) {
                workers[worker].run(begin + i, &weights[i * held], &changes[i * held]);
            });
            run_pieces(threads, threads, [&](int64_t range, int64_t) {
                for (int64_t i = 0; i < size; i++)
                    ranges[range].add(begin + i, &weights[i * held], &changes[i * held]);
            });
        }
    });
}
