// The activation unit over tiles of pairs. A tile holds the pairs of several candidates, so that
// short windows share the products of the later layers; the first layer has a matrix for each
// candidate:
//
//     (Wk - Wd) k + Wp (q * k) = (Wk - Wd + Wp diag(q)) k
#pragma once

#include "din_activation.h"
#include "matmul.h"

constexpr int64_t kTile = 64;  // pairs; their activations stay in the second cache

// some consecutive pairs of one candidate
struct Segment {
    int64_t candidate, place;  // place: in the chunk
    int64_t begin, rows;       // of the behaviours
    int64_t offset;            // first row in the tile
    bool opens, closes;        // whether the window begins and ends here
};

// What one thread works with.
struct Tile {
    const Problem& problem;
    const Unit& unit;
    std::vector<Segment> segments;
    int64_t rows = 0;
    Floats query, of_candidate;       // of a chunk, [candidates, dim_pad] and [candidates, out_pad]
    Floats keys, scores;              // [kTile, dim_pad], if dim is no multiple of a vector; [kTile]
    Floats effective;                 // [dim, out_pad], of the present candidate
    std::vector<Floats> hidden;       // [kTile, out_pad] of every layer
    std::vector<Floats> slope, term, lift, standard;  // likewise, see Derived

    Tile(const Problem& problem, const Unit& unit, int64_t candidates, bool keep)
        : problem(problem), unit(unit) {
        const int64_t first = unit.layers[0].out_pad;
        query.assign(candidates * unit.dim_pad, 0.0f);
        of_candidate.assign(candidates * first, 0.0f);
        if (unit.dim != unit.dim_pad) keys.assign(kTile * unit.dim_pad, 0.0f);
        // a vector may reach over the end
        scores.assign(kTile + kLanes, 0.0f);
        effective.assign(unit.dim * first, 0.0f);
        for (const Layer& layer : unit.layers) {
            hidden.emplace_back(kTile * layer.out_pad, 0.0f);
            const int64_t size = keep ? kTile * layer.out_pad : 0;
            const bool dice = layer.activation == kDice, learned = dice || layer.activation == kPRelu;
            for (auto* values : {&slope, &term}) values->emplace_back(learned ? size : 0, 0.0f);
            for (auto* values : {&lift, &standard}) values->emplace_back(dice ? size : 0, 0.0f);
        }
    }

    // of a layer, from a row on
    Derived derived(int64_t l, int64_t row) {
        const int64_t at = row * unit.layers[l].out_pad;
        return {
            slope[l].data() + at, term[l].data() + at, lift[l].data() + at, standard[l].data() + at};
    }

    // calls use() with one filled tile after the other
    template <typename Use>
    void walk(const Schedule& schedule, Chunk chunk, Use use) {
        project_candidates(schedule, chunk);
        for (int64_t i = chunk.first; i < chunk.last; i++) {
            const int64_t candidate = schedule.order[i];
            const int64_t begin = problem.windows[2 * candidate];
            const int64_t end = problem.windows[2 * candidate + 1];
            // only what is longer than a tile is ever divided
            if (rows > 0 && rows + end - begin > kTile) flush(use);
            for (int64_t at = begin; at < end;) {
                const int64_t taken = std::min(kTile - rows, end - at);
                segments.push_back(
                    {candidate, i - chunk.first, at, taken, rows, at == begin, at + taken == end});
                rows += taken, at += taken;
                if (rows == kTile) flush(use);
            }
        }
        if (rows > 0) flush(use);
    }

    // behaviours of a segment as padded rows
    const float* segment_keys(const Segment& segment) const {
        return keys.empty() ? problem.behavior + segment.begin * unit.dim
                            : &keys[segment.offset * unit.dim_pad];
    }

    // the hidden layers of all pairs of the tile; kKeep leaves what the backward needs
    template <bool kKeep>
    void fill_layers() {
        first_layer<kKeep>();
        for (int64_t l = 1; l < problem.layers; l++) {
            const Layer& layer = unit.layers[l];
            multiply<false>(
                {hidden[l - 1].data(), unit.layers[l - 1].out_pad, 1}, layer.forward.data(),
                layer.out_pad, hidden[l].data(), layer.out_pad, rows, layer.out_pad, layer.in);
            activate<kKeep>(layer, layer.bias.data(), hidden[l].data(), derived(l, 0), rows);
        }
    }

    // the scores too
    template <bool kKeep>
    void score() {
        fill_layers<kKeep>();
        const int64_t last = problem.layers - 1;
        dot_rows(hidden[last].data(), unit.score.data(), unit.layers[last].out_pad, rows, scores.data());
        for (int64_t r = 0; r < rows; r++) scores[r] += unit.score_bias;
    }

   private:
    template <typename Use>
    void flush(Use use) {
        if (!keys.empty())
            for (const Segment& segment : segments)
                for (int64_t r = 0; r < segment.rows; r++)
                    std::copy_n(
                        problem.behavior + (segment.begin + r) * unit.dim, unit.dim,
                        &keys[(segment.offset + r) * unit.dim_pad]);
        use();
        segments.clear();
        rows = 0;
    }

    // (Wq + Wd) q + b of every candidate of a chunk
    void project_candidates(const Schedule& schedule, Chunk chunk) {
        const Layer& layer = unit.layers[0];
        const int64_t count = chunk.last - chunk.first;
        for (int64_t i = 0; i < count; i++) {
            const float* row = problem.query + schedule.order[chunk.first + i] * unit.dim;
            std::copy_n(row, unit.dim, &query[i * unit.dim_pad]);
            std::copy_n(layer.bias.begin(), layer.out_pad, &of_candidate[i * layer.out_pad]);
        }
        multiply<true>(
            {query.data(), unit.dim_pad, 1}, unit.candidate.data(), layer.out_pad,
            of_candidate.data(), layer.out_pad, count, layer.out_pad, unit.dim);
    }

    template <bool kKeep>
    void first_layer() {
        const Layer& layer = unit.layers[0];
        const int64_t width = layer.out_pad;
        for (const Segment& segment : segments) {
            if (segment.opens) combine(segment);
            const int64_t at = segment.offset * width;
            multiply<false>(
                {segment_keys(segment), unit.dim_pad, 1}, effective.data(), width, &hidden[0][at],
                width, segment.rows, width, unit.dim);
            activate<kKeep>(
                layer, &of_candidate[segment.place * width], &hidden[0][at],
                derived(0, segment.offset), segment.rows);
        }
    }

    void combine(const Segment& segment) {
        const int64_t width = unit.layers[0].out_pad;
        const float* factors = &query[segment.place * unit.dim_pad];
        const float *shared = unit.behavior.data(), *product = unit.product.data();
        float* to = effective.data();
        for (int64_t d = 0; d < unit.dim; d++) {
            const Vec factor = splat(factors[d]);
            for (int64_t at = d * width; at < (d + 1) * width; at += kLanes)
                store(to + at, load(shared + at) + factor * load(product + at));
        }
    }
};
