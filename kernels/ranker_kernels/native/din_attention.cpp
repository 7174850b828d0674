// DIN's attention on CPUs, forward and backward, for float32: the same function as blocked.py.
//
// Nothing of a pair is kept; the backward computes it again. Chunks of candidates (din_problem.h) are
// independent of each other, and sums over chunks are taken in their order, so the result does not
// depend on the number of threads.

#include <cmath>
#include <limits>

#include "din_backward.h"
#include "din_moments.h"
#include "parallel.h"

namespace {

// Pools the windows of one chunk after the other.
struct Forward {
    Tile tile;
    float *output, *terms;
    Floats pooled;  // [dim_pad], of the present candidate
    float highest = 0.0f, total = 0.0f;  // of its scaled scores, and of their exponentials

    Forward(const Problem& problem, const Unit& unit, int64_t longest, float* output, float* terms)
        : tile(problem, unit, longest, false), output(output), terms(terms), pooled(unit.dim_pad) {}

    void run(const Schedule& schedule, Chunk chunk) {
        tile.walk(schedule, chunk, [&] {
            tile.score<false>();
            for (const Segment& segment : tile.segments) pool(segment);
        });
    }

   private:
    void pool(const Segment& segment) {
        const Problem& problem = tile.problem;
        const int64_t dim = tile.unit.dim, width = tile.unit.dim_pad;
        float* weights = &tile.scores[segment.offset];
        if (segment.opens) {
            std::fill(pooled.begin(), pooled.end(), 0.0f);
            highest = -std::numeric_limits<float>::infinity(), total = 0.0f;
        }
        if (problem.softmax) exponentiate(weights, segment.rows);
        multiply<true>(
            {weights, 0, 1}, tile.segment_keys(segment), width, pooled.data(), width, 1, width,
            segment.rows);
        if (!segment.closes) return;
        const float scale = problem.softmax ? 1.0f / total : 1.0f;
        for (int64_t d = 0; d < dim; d++) output[segment.candidate * dim + d] = pooled[d] * scale;
        if (problem.softmax) {
            terms[segment.candidate] = highest;
            terms[problem.candidates + segment.candidate] = total;
        }
    }

    // scores become exp(score / sqrt(D) - highest); what was pooled before follows a new highest
    void exponentiate(float* scores, int64_t rows) {
        const float scale = 1.0f / std::sqrt(static_cast<float>(tile.unit.dim)), before = highest;
        for (int64_t r = 0; r < rows; r++) {
            // not std::max, which would hide a NaN
            if (!(scores[r] * scale <= highest)) highest = scores[r] * scale;
        }
        if (highest != before && total > 0.0f) {
            const float shrink = std::exp(before - highest);
            total *= shrink;
            for (float& value : pooled) value *= shrink;
        }
        exp_in_place(scores, rows, scale, highest, 1.0f);
        for (int64_t r = 0; r < rows; r++) total += scores[r];
    }
};

template <typename Worker>
std::vector<Worker> workers(const Problem& problem, const Schedule& schedule, Worker worker) {
    const int64_t pieces = static_cast<int64_t>(schedule.chunks.size());
    return {static_cast<size_t>(std::clamp<int64_t>(pieces, 1, problem.threads)), worker};
}

void differentiate(
    const Problem& problem, const Unit& unit, const Upstream& upstream, const Outputs& outputs) {
    const Schedule schedule(problem, true);
    std::vector<UnitGradient> parts(schedule.chunks.size(), UnitGradient(unit));
    auto pool = workers(problem, schedule, Backward(problem, unit, schedule.longest, upstream));
    run_pieces(schedule.chunks.size(), pool.size(), [&](int64_t piece, int64_t worker) {
        pool[worker].run(schedule, schedule.chunks[piece], parts[piece]);
    });
    UnitGradient total(unit);
    for (const UnitGradient& part : parts) total += part;
    total.write(unit, outputs);
}

}  // namespace

// Writes output [candidates, dim] and, with softmax, terms [2, candidates] of every candidate whose
// window is not empty; the others are the caller's. Returns 0, or 1 where memory ran out.
extern "C" int din_forward(const Problem* problem, float* output, float* terms) {
    return guarded([&] {
        const Unit unit(*problem);
        const Schedule schedule(*problem, false);
        auto pool = workers(
            *problem, schedule, Forward(*problem, unit, schedule.longest, output, terms));
        run_pieces(schedule.chunks.size(), pool.size(), [&](int64_t piece, int64_t worker) {
            pool[worker].run(schedule, schedule.chunks[piece]);
        });
    });
}

// Adds to query_gradient [candidates, dim] and behavior_gradient [behaviors, dim], and writes the
// other gradients. Returns as above.
extern "C" int din_backward(
    const Problem* problem, const float* gradient, const float* output, const float* terms,
    float* query_gradient, float* behavior_gradient, const Outputs* outputs) {
    return guarded([&] {
        const Unit unit(*problem);
        differentiate(
            *problem, unit,
            {gradient, output, terms, nullptr, nullptr, query_gradient, behavior_gradient}, *outputs);
    });
}

// Writes mean and variance [width] of the last layer, which has no activation, over all pairs.
extern "C" int din_moments(const Problem* problem, float* mean, float* variance) {
    return guarded([&] {
        const Unit unit(*problem);
        const Schedule schedule(*problem, false);
        std::vector<Spread> parts(schedule.chunks.size(), Spread(unit));
        auto pool = workers(*problem, schedule, MomentsForward(*problem, unit, schedule.longest));
        run_pieces(schedule.chunks.size(), pool.size(), [&](int64_t piece, int64_t worker) {
            pool[worker].run(schedule, schedule.chunks[piece], parts[piece]);
        });
        Spread total(unit);
        for (const Spread& part : parts) total += part;
        total.write(unit, mean, variance);
    });
}

// The gradients of a function of these moments; offset and slope [width] are those of Upstream.
extern "C" int din_moments_backward(
    const Problem* problem, const float* offset, const float* slope, float* query_gradient,
    float* behavior_gradient, const Outputs* outputs) {
    return guarded([&] {
        const Unit unit(*problem);
        const Layer& last = unit.layers.back();
        const Floats offsets = padded(offset, last.out, last.out_pad);
        const Floats slopes = padded(slope, last.out, last.out_pad);
        differentiate(
            *problem, unit,
            {nullptr, nullptr, nullptr, offsets.data(), slopes.data(), query_gradient,
             behavior_gradient},
            *outputs);
    });
}
