// The gradients of DIN's attention over the chunks of a batch.
#pragma once

#include "din_tile.h"

// values become share exp(scale value - highest)
static inline void exp_in_place(
    float* values, int64_t count, float scale, float highest, float share) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
        store(values + i, share * exp(scale * load(values + i) - highest));
    if (i == count) return;
    float rest[kLanes] = {};
    std::copy_n(values + i, count - i, rest);
    store(rest, share * exp(scale * load(rest) - highest));
    std::copy_n(rest, count - i, values + i);
}

struct Upstream {
    const float *gradient, *output, *terms;  // if there are scores
    const float *offset, *slope;  // [out_pad] else: the gradient of z of the last layer is their line
    float *query, *behavior;      // where the gradients go, of candidates and behaviours
};

struct Backward {
    Tile tile;
    Upstream upstream;
    const UnitGradient* sums = nullptr;
    std::vector<Floats> gradient;        // of the hidden layers, [kTile, out_pad]
    Floats score_gradient;               // [kTile]
    Floats pooled_gradient;              // [kTile, dim_pad], a row for each segment
    Floats effective_t;                  // [out, dim_pad], of the present candidate
    Floats key_gradient;                 // [kTile, dim_pad], if dim is no multiple of a vector
    Floats of_candidate_gradient, query_gradient;  // of a chunk

    Backward(const Problem& problem, const Unit& unit, int64_t longest, Upstream upstream)
        : tile(problem, unit, longest, true), upstream(upstream) {
        for (const Layer& layer : unit.layers) gradient.emplace_back(kTile * layer.out_pad, 0.0f);
        score_gradient.assign(kTile, 0.0f);
        pooled_gradient.assign(kTile * unit.dim_pad, 0.0f);
        effective_t.assign(unit.layers[0].out * unit.dim_pad, 0.0f);
        if (unit.dim != unit.dim_pad) key_gradient.assign(kTile * unit.dim_pad, 0.0f);
        of_candidate_gradient.assign(longest * unit.layers[0].out_pad, 0.0f);
        query_gradient.assign(longest * unit.dim_pad, 0.0f);
    }

    // `into` holds zeros
    void run(const Schedule& schedule, Chunk chunk, const UnitGradient& into) {
        sums = &into;
        const int64_t dim = tile.unit.dim;
        std::fill(upstream.behavior + chunk.begin * dim, upstream.behavior + chunk.end * dim, 0.0f);
        std::fill(of_candidate_gradient.begin(), of_candidate_gradient.end(), 0.0f);
        std::fill(query_gradient.begin(), query_gradient.end(), 0.0f);
        tile.walk(schedule, chunk, [&] {
            tile.problem.scored ? begin_at_scores() : begin_at_moments();
            const int64_t last = tile.problem.layers - 1;
            back_through_activation(last);
            for (int64_t l = last; l > 0; l--) back_through_layer(l);
            for (const Segment& segment : tile.segments) back_through_first(segment);
        });
        finish(schedule, chunk);
    }

   private:
    // leaves the gradient of the last hidden layer, and each pair's weight in the pooled behaviours
    void begin_at_scores() {
        tile.score<true>();
        for (const Segment& segment : tile.segments) weigh(segment);
        back_through_score();
    }

    // the same for moments (din_moments.h): nothing is pooled, the weights of the pairs stay zero
    void begin_at_moments() {
        tile.fill_layers<true>();
        const int64_t last = tile.problem.layers - 1, width = tile.unit.layers[last].out_pad;
        const float* values = tile.hidden[last].data();
        float* to = gradient[last].data();
        for (int64_t v = 0; v < width; v += kLanes) {
            const Vec offset = load(upstream.offset + v), slope = load(upstream.slope + v);
            for (int64_t at = v; at < tile.rows * width; at += width)
                store(to + at, offset + slope * load(values + at));
        }
    }

    // scores become weights, whose gradient goes to the scores and to the pooled behaviours
    void weigh(const Segment& segment) {
        const Problem& problem = tile.problem;
        const int64_t dim = tile.unit.dim, width = tile.unit.dim_pad;
        const float* row = upstream.gradient + segment.candidate * dim;
        float* pooled = &pooled_gradient[place_of(segment) * width];
        std::copy_n(row, dim, pooled);
        float* weights = &tile.scores[segment.offset];
        float* gradients = &score_gradient[segment.offset];
        const float* keys = tile.segment_keys(segment);
        dot_rows(keys, pooled, width, segment.rows, gradients);
        if (problem.softmax) {
            const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
            const float highest = upstream.terms[segment.candidate];
            const float share = 1.0f / upstream.terms[problem.candidates + segment.candidate];
            exp_in_place(weights, segment.rows, scale, highest, share);
            const float mean = mean_gradient(segment);
            for (int64_t r = 0; r < segment.rows; r++)
                gradients[r] = weights[r] * (gradients[r] - mean) * scale;
        }
    }

    int64_t place_of(const Segment& segment) const { return &segment - tile.segments.data(); }

    // the mean of the weights' gradients under the weights, which softmax subtracts
    float mean_gradient(const Segment& segment) const {
        const int64_t dim = tile.unit.dim;
        double mean = 0.0, total = 0.0;
        if (segment.opens && segment.closes) {
            // with the very numbers that it is subtracted from, the differences add up to nothing
            for (int64_t r = segment.offset; r < segment.offset + segment.rows; r++) {
                mean += static_cast<double>(tile.scores[r]) * score_gradient[r];
                total += tile.scores[r];
            }
            return static_cast<float>(mean / total);
        }
        // the same from outside: the gradient times the output
        const int64_t row = segment.candidate * dim;
        for (int64_t at = row; at < row + dim; at++)
            mean += static_cast<double>(upstream.gradient[at]) * upstream.output[at];
        return static_cast<float>(mean);
    }

    // padded rows to add the gradients of a segment's behaviours to
    float* key_gradients(const Segment& segment) {
        return key_gradient.empty() ? upstream.behavior + segment.begin * tile.unit.dim
                                    : &key_gradient[segment.offset * tile.unit.dim_pad];
    }

    void back_through_score() {
        const int64_t last = tile.problem.layers - 1, width = tile.unit.layers[last].out_pad;
        const int64_t rows = tile.rows;
        const float *factors = score_gradient.data(), *hidden = tile.hidden[last].data();
        float* to = gradient[last].data();
        for (int64_t v = 0; v < width; v += kLanes) {
            const Vec weight = load(&tile.unit.score[v]);
            Vec total{};
            for (int64_t r = 0; r < rows; r++) {
                const Vec factor = splat(factors[r]);
                total += factor * load(hidden + r * width + v);
                store(to + r * width + v, factor * weight);
            }
            store(&sums->score[v], load(&sums->score[v]) + total);
        }
        double total = 0.0;
        for (int64_t r = 0; r < rows; r++) total += factors[r];
        *sums->score_bias += static_cast<float>(total);
    }

    void back_through_activation(int64_t l) {
        const int64_t width = tile.unit.layers[l].out_pad;
        activate_backward(
            tile.unit.layers[l], tile.hidden[l].data(), tile.derived(l, 0), gradient[l].data(),
            {sums->alpha[l], sums->lift[l], sums->spread[l]}, tile.rows);
        // the bias of the first layer is summed with the candidates'
        if (l > 0) add_columns(gradient[l].data(), sums->bias[l], width, tile.rows);
    }

    void back_through_layer(int64_t l) {
        const Layer& layer = tile.unit.layers[l];
        multiply<true>(
            {gradient[l].data(), 1, layer.out_pad}, tile.hidden[l - 1].data(), layer.in_pad,
            sums->weight[l], layer.in_pad, layer.out, layer.in_pad, tile.rows);
        multiply<false>(
            {gradient[l].data(), layer.out_pad, 1}, layer.backward.data(), layer.in_pad,
            gradient[l - 1].data(), layer.in_pad, tile.rows, layer.in_pad, layer.out);
        back_through_activation(l - 1);
    }

    void back_through_first(const Segment& segment) {
        const int64_t width = tile.unit.layers[0].out_pad;
        const float* rows = &gradient[0][segment.offset * width];
        add_columns(rows, &of_candidate_gradient[segment.place * width], width, segment.rows);
        back_through_effective(segment, rows);
        if (segment.opens) combine_transposed(segment);
        back_through_keys(segment, rows);
    }

    // from the gradient of the candidate's own matrix to its query and the shared blocks
    void back_through_effective(const Segment& segment, const float* rows) {
        const Unit& unit = tile.unit;
        const int64_t width = unit.layers[0].out_pad, place = segment.place * unit.dim_pad;
        const float *query = &tile.query[place], *product = unit.product.data();
        float *to_shared = sums->behavior, *to_product = sums->product;
        float* to_query = &query_gradient[place];
        multiply_into(
            {tile.segment_keys(segment), 1, unit.dim_pad}, rows, width, unit.dim, width,
            segment.rows, [=](int64_t d, int64_t column, const auto& values) {
                const Vec factor = splat(query[d]);
                Vec total{};
                int64_t at = d * width + column;
                for (const Vec& value : values) {
                    store(to_shared + at, load(to_shared + at) + value);
                    store(to_product + at, load(to_product + at) + factor * value);
                    total += value * load(product + at);
                    at += kLanes;
                }
                to_query[d] += sum(total);
            });
    }

    // from the pairs' hidden values and from the pooled behaviours
    void back_through_keys(const Segment& segment, const float* rows) {
        const Unit& unit = tile.unit;
        const int64_t width = unit.dim_pad, layer = unit.layers[0].out_pad;
        const float *weights = &tile.scores[segment.offset];
        const float* pooled = &pooled_gradient[place_of(segment) * width];
        float* to = key_gradients(segment);
        if (!key_gradient.empty()) std::fill_n(to, segment.rows * width, 0.0f);
        multiply_into(
            {rows, layer, 1}, effective_t.data(), width, segment.rows, width, unit.layers[0].out,
            [=](int64_t r, int64_t column, const auto& values) {
                const Vec weight = splat(weights[r]);
                for (const Vec& value : values) {
                    float* at = to + r * width + column;
                    store(at, load(at) + value + weight * load(pooled + column));
                    column += kLanes;
                }
            });
        if (!key_gradient.empty()) add_key_gradients(segment);
    }

    void combine_transposed(const Segment& segment) {
        const Unit& unit = tile.unit;
        const int64_t width = unit.dim_pad, outputs = unit.layers[0].out;
        const float* query = &tile.query[segment.place * width];
        const float *shared = unit.behavior_t.data(), *product = unit.product_t.data();
        float* to = effective_t.data();
        for (int64_t o = 0; o < outputs; o++)
            for (int64_t v = 0; v < width; v += kLanes)
                store(
                    to + o * width + v,
                    load(shared + o * width + v) + load(query + v) * load(product + o * width + v));
    }

    void add_key_gradients(const Segment& segment) {
        const int64_t dim = tile.unit.dim;
        for (int64_t r = 0; r < segment.rows; r++)
            for (int64_t d = 0; d < dim; d++)
                upstream.behavior[(segment.begin + r) * dim + d] +=
                    key_gradients(segment)[r * tile.unit.dim_pad + d];
    }

    void finish(const Schedule& schedule, Chunk chunk) {
        const Unit& unit = tile.unit;
        const int64_t width = unit.layers[0].out_pad, count = chunk.last - chunk.first;
        multiply<true>(
            {tile.query.data(), 1, unit.dim_pad}, of_candidate_gradient.data(), width,
            sums->candidate, width, unit.dim, width, count);
        multiply<true>(
            {of_candidate_gradient.data(), width, 1}, unit.candidate_t.data(), unit.dim_pad,
            query_gradient.data(), unit.dim_pad, count, unit.dim_pad, unit.layers[0].out);
        add_columns(of_candidate_gradient.data(), sums->bias[0], width, count);
        for (int64_t i = 0; i < count; i++)
            std::copy_n(
                &query_gradient[i * unit.dim_pad], unit.dim,
                upstream.query + schedule.order[chunk.first + i] * unit.dim);
    }
};
