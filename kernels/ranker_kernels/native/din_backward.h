// The gradients of DIN's attention over the chunks of a batch.
#pragma once

#include "din_tile.h"

// weights become exp(weight - highest); may write a vector over the end
static inline void exp_in_place(float* values, int64_t count, float highest) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(values + i, exp(load(values + i) - highest));
    if (i == count) return;
    float rest[kLanes] = {};
    std::copy_n(values + i, count - i, rest);
    store(rest, exp(load(rest) - highest));
    std::copy_n(rest, count - i, values + i);
}

struct Upstream {
    const float *gradient, *output, *terms;
    float *query, *behavior;  // where the gradients go
};

struct Backward {
    Tile tile;
    Upstream upstream;
    UnitGradient* sums = nullptr;
    std::vector<Floats> gradient;        // of the hidden layers, [kTile, out_pad]
    Floats score_gradient;               // [kTile]
    Floats pooled_gradient;              // [dim_pad], of the present candidate
    Floats effective_t;                  // [out, dim_pad], of the present candidate
    Floats effective_gradient;           // [dim, out_pad], likewise
    Floats key_gradient;                 // [kTile, dim_pad], if dim is no multiple of a vector
    Floats of_candidate_gradient, query_gradient;  // of a chunk

    Backward(const Problem& problem, const Unit& unit, int64_t longest, Upstream upstream)
        : tile(problem, unit, longest, true), upstream(upstream) {
        for (const Layer& layer : unit.layers) gradient.emplace_back(kTile * layer.out_pad, 0.0f);
        score_gradient.assign(kTile, 0.0f);
        pooled_gradient.assign(unit.dim_pad, 0.0f);
        effective_t.assign(unit.layers[0].out * unit.dim_pad, 0.0f);
        effective_gradient.assign(unit.dim * unit.layers[0].out_pad, 0.0f);
        if (unit.dim != unit.dim_pad) key_gradient.assign(kTile * unit.dim_pad, 0.0f);
        of_candidate_gradient.assign(longest * unit.layers[0].out_pad, 0.0f);
        query_gradient.assign(longest * unit.dim_pad, 0.0f);
    }

    void run(const Schedule& schedule, Chunk chunk, UnitGradient& into) {
        sums = &into;
        std::fill(of_candidate_gradient.begin(), of_candidate_gradient.end(), 0.0f);
        std::fill(query_gradient.begin(), query_gradient.end(), 0.0f);
        tile.walk(schedule, chunk, [&] {
            tile.score<true>();
            for (const Segment& segment : tile.segments) weigh(segment);
            back_through_score();
            for (int64_t l = tile.problem.layers - 1; l > 0; l--) back_through_layer(l);
            for (const Segment& segment : tile.segments) back_through_first(segment);
        });
        finish(schedule, chunk);
    }

   private:
    // scores become weights, whose gradient goes to the scores and to the pooled behaviours
    void weigh(const Segment& segment) {
        const Problem& problem = tile.problem;
        const int64_t dim = tile.unit.dim, width = tile.unit.dim_pad;
        const float* row = upstream.gradient + segment.candidate * dim;
        std::copy_n(row, dim, pooled_gradient.begin());
        float* weights = &tile.scores[segment.offset];
        float* gradients = &score_gradient[segment.offset];
        const float* keys = tile.segment_keys(segment);
        for (int64_t r = 0; r < segment.rows; r++) {
            Vec total{};
            for (int64_t v = 0; v < width; v += kLanes)
                total += load(keys + r * width + v) * load(&pooled_gradient[v]);
            gradients[r] = sum(total);
        }
        if (problem.softmax) {
            const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
            const float highest = upstream.terms[segment.candidate];
            const float share = 1.0f / upstream.terms[problem.candidates + segment.candidate];
            for (int64_t r = 0; r < segment.rows; r++) weights[r] *= scale;
            exp_in_place(weights, segment.rows, highest);
            for (int64_t r = 0; r < segment.rows; r++) weights[r] *= share;
            const float mean = mean_gradient(segment);
            for (int64_t r = 0; r < segment.rows; r++)
                gradients[r] = weights[r] * (gradients[r] - mean) * scale;
        }
        for (int64_t r = 0; r < segment.rows; r++) {
            float* to = key_gradients(segment) + r * width;
            const Vec weight = splat(weights[r]);
            for (int64_t v = 0; v < width; v += kLanes) {
                const Vec value = weight * load(&pooled_gradient[v]);
                store(to + v, key_gradient.empty() ? load(to + v) + value : value);
            }
        }
    }

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
        for (int64_t v = 0; v < width; v += kLanes) {
            const Vec weight = load(&tile.unit.score[v]);
            Vec total{};
            for (int64_t r = 0; r < tile.rows; r++) {
                const Vec factor = splat(score_gradient[r]);
                total += factor * load(&tile.hidden[last][r * width + v]);
                store(&gradient[last][r * width + v], factor * weight);
            }
            store(&sums->score[v], load(&sums->score[v]) + total);
        }
        double total = 0.0;
        for (int64_t r = 0; r < tile.rows; r++) total += score_gradient[r];
        sums->score_bias += static_cast<float>(total);
        back_through_activation(last);
    }

    void back_through_activation(int64_t l) {
        const int64_t width = tile.unit.layers[l].out_pad;
        activate_backward(
            tile.problem.activation, width, tile.hidden[l].data(), tile.slope[l].data(),
            tile.term[l].data(), gradient[l].data(), sums->alpha[l].data(), tile.rows);
        // the bias of the first layer is summed with the candidates'
        if (l > 0) add_columns(gradient[l].data(), sums->bias[l].data(), width, tile.rows);
    }

    void back_through_layer(int64_t l) {
        const Layer& layer = tile.unit.layers[l];
        multiply<true>(
            {gradient[l].data(), 1, layer.out_pad}, tile.hidden[l - 1].data(), layer.in_pad,
            sums->weight[l].data(), layer.in_pad, layer.out, layer.in_pad, tile.rows);
        multiply<false>(
            {gradient[l].data(), layer.out_pad, 1}, layer.backward.data(), layer.in_pad,
            gradient[l - 1].data(), layer.in_pad, tile.rows, layer.in_pad, layer.out);
        back_through_activation(l - 1);
    }

    void back_through_first(const Segment& segment) {
        const Unit& unit = tile.unit;
        const int64_t width = unit.layers[0].out_pad;
        const float* rows = &gradient[0][segment.offset * width];
        add_columns(rows, &of_candidate_gradient[segment.place * width], width, segment.rows);
        if (segment.opens) {
            std::fill(effective_gradient.begin(), effective_gradient.end(), 0.0f);
            combine_transposed(segment);
        }
        multiply<true>(
            {tile.segment_keys(segment), 1, unit.dim_pad}, rows, width, effective_gradient.data(),
            width, unit.dim, width, segment.rows);
        multiply<true>(
            {rows, width, 1}, effective_t.data(), unit.dim_pad, key_gradients(segment), unit.dim_pad,
            segment.rows, unit.dim_pad, unit.layers[0].out);
        if (!key_gradient.empty()) add_key_gradients(segment);
        if (segment.closes) back_through_effective(segment);
    }

    void combine_transposed(const Segment& segment) {
        const Unit& unit = tile.unit;
        const float* query = &tile.query[segment.place * unit.dim_pad];
        for (int64_t o = 0; o < unit.layers[0].out; o++)
            for (int64_t v = 0; v < unit.dim_pad; v += kLanes) {
                const int64_t at = o * unit.dim_pad + v;
                store(
                    &effective_t[at],
                    load(&unit.behavior_t[at]) + load(query + v) * load(&unit.product_t[at]));
            }
    }

    void add_key_gradients(const Segment& segment) {
        const int64_t dim = tile.unit.dim;
        for (int64_t r = 0; r < segment.rows; r++)
            for (int64_t d = 0; d < dim; d++)
                upstream.behavior[(segment.begin + r) * dim + d] +=
                    key_gradients(segment)[r * tile.unit.dim_pad + d];
    }

    // from the gradient of the candidate's own matrix to its query and the shared blocks
    void back_through_effective(const Segment& segment) {
        const Unit& unit = tile.unit;
        const int64_t width = unit.layers[0].out_pad;
        for (int64_t d = 0; d < unit.dim; d++) {
            const int64_t place = segment.place * unit.dim_pad + d;
            const Vec query = splat(tile.query[place]);
            Vec total{};
            for (int64_t at = d * width; at < (d + 1) * width; at += kLanes) {
                const Vec value = load(&effective_gradient[at]);
                store(&sums->behavior[at], load(&sums->behavior[at]) + value);
                store(&sums->product[at], load(&sums->product[at]) + query * value);
                total += value * load(&unit.product[at]);
            }
            query_gradient[place] += sum(total);
        }
    }

    void finish(const Schedule& schedule, Chunk chunk) {
        const Unit& unit = tile.unit;
        const int64_t width = unit.layers[0].out_pad, count = chunk.last - chunk.first;
        multiply<true>(
            {tile.query.data(), 1, unit.dim_pad}, of_candidate_gradient.data(), width,
            sums->candidate.data(), width, unit.dim, width, count);
        multiply<true>(
            {of_candidate_gradient.data(), width, 1}, unit.candidate_t.data(), unit.dim_pad,
            query_gradient.data(), unit.dim_pad, count, unit.dim_pad, unit.layers[0].out);
        add_columns(of_candidate_gradient.data(), sums->bias[0].data(), width, count);
        for (int64_t i = 0; i < count; i++)
            for (int64_t d = 0; d < unit.dim; d++)
                upstream.query[schedule.order[chunk.first + i] * unit.dim + d] +=
                    query_gradient[i * unit.dim_pad + d];
    }
};
