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
    std::vector<Floats> hidden, slope, term;  // [kTile, out_pad] of every layer

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
            const bool derived = keep && problem.activation != kSigmoid;
            slope.emplace_back(derived ? kTile * layer.out_pad : 0, 0.0f);
            term.emplace_back(derived ? kTile * layer.out_pad : 0, 0.0f);
        }
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

    // the scores of all pairs of the tile; kKeep leaves what the backward needs
    template <bool kKeep>
    void score() {
        const int64_t last = problem.layers - 1;
        first_layer<kKeep>();
        for (int64_t l = 1; l <= last; l++) {
            const Layer& layer = unit.layers[l];
            multiply<false>(
                {hidden[l - 1].data(), unit.layers[l - 1].out_pad, 1}, layer.forward.data(),
                layer.out_pad, hidden[l].data(), layer.out_pad, rows, layer.out_pad, layer.in);
            activate<kKeep>(
                problem.activation, layer, layer.bias.data(), hidden[l].data(), slope[l].data(),
                term[l].data(), rows);
        }
        const int64_t width = unit.layers[last].out_pad;
        for (int64_t r = 0; r < rows; r++) {
            Vec total{};
            for (int64_t v = 0; v < width; v += kLanes)
                total += load(&hidden[last][r * width + v]) * load(&unit.score[v]);
            scores[r] = sum(total) + unit.score_bias;
        }
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
                problem.activation, layer, &of_candidate[segment.place * width], &hidden[0][at],
                slope[0].data() + at, term[0].data() + at, segment.rows);
        }
    }

    void combine(const Segment& segment) {
        const int64_t width = unit.layers[0].out_pad;
        for (int64_t d = 0; d < unit.dim; d++) {
            const Vec factor = splat(query[segment.place * unit.dim_pad + d]);
            for (int64_t at = d * width; at < (d + 1) * width; at += kLanes)
                store(&effective[at], load(&unit.behavior[at]) + factor * load(&unit.product[at]));
        }
    }
};
