// DIN's attention on CPUs, forward and backward, for float32: the same function as blocked.py.
//
// Nothing of a pair is kept; the backward computes it again. Chunks of candidates (din_problem.h) are
// independent of each other, and sums over chunks are taken in their order, so the result does not
// depend on the number of threads.

#include <cmath>
#include <limits>
#include <optional>

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

// calls use(worker, chunk, its number) for every chunk; each thread makes a worker of its own
template <typename Make, typename Use>
void run_chunks(const Problem& problem, const Schedule& schedule, Make make, Use use) {
    const int64_t chunks = static_cast<int64_t>(schedule.chunks.size());
    std::vector<std::optional<decltype(make())>> pool(std::min(chunks, problem.threads));
    run_pieces(chunks, problem.threads, [&](int64_t chunk, int64_t worker) {
        if (!pool[worker]) pool[worker].emplace(make());
        use(*pool[worker], schedule.chunks[chunk], chunk);
    });
}

// adds the rows of values [rows, size] to the first one, in their order
void add_rows(float* values, int64_t rows, int64_t size, int64_t threads) {
    constexpr int64_t kSlice = 1024;
    run_pieces((size + kSlice - 1) / kSlice, threads, [&](int64_t slice, int64_t) {
        const int64_t first = slice * kSlice, last = std::min(first + kSlice, size);
        for (int64_t row = 1; row < rows; row++)
            for (int64_t i = first; i < last; i++) values[i] += values[row * size + i];
    });
}

void differentiate(
    const Problem& problem, const Unit& unit, const Upstream& upstream, const Outputs& outputs) {
    const Schedule schedule(problem, true);
    const int64_t dim = problem.dim, size = UnitGradient(unit, nullptr).size;
    const int64_t parts = std::max<int64_t>(schedule.chunks.size(), 1);
    // everything is written by the thread that has the chunk
    const RawFloats sums = raw_floats(parts * size);
    run_chunks(
        problem, schedule, [&] { return Backward(problem, unit, schedule.longest, upstream); },
        [&](Backward& worker, Chunk chunk, int64_t part) {
            float* own = sums.get() + part * size;
            std::fill_n(own, size, 0.0f);
            worker.run(schedule, chunk, UnitGradient(unit, own));
        });
    // but for what no chunk has
    for (int64_t c = 0; c < problem.candidates; c++)
        if (is_empty(problem, c)) std::fill_n(upstream.query + c * dim, dim, 0.0f);
    if (schedule.chunks.empty()) {
        std::fill_n(upstream.behavior, problem.behaviors * dim, 0.0f);
        std::fill_n(sums.get(), size, 0.0f);
    }
    add_rows(sums.get(), parts, size, problem.threads);
    UnitGradient(unit, sums.get()).write(unit, outputs);
}

}  // namespace

// Writes output [candidates, dim], and with softmax terms [2, candidates]. Returns 0, 1 where memory
// ran out, or kOutside, like all below.
extern "C" int din_forward(const Problem* problem, float* output, float* terms) {
    if (!problem->has_windows()) return kOutside;
    return guarded([&] {
        const Unit unit(*problem);
        const Schedule schedule(*problem, false);
        run_chunks(
            *problem, schedule,
            [&] { return Forward(*problem, unit, schedule.longest, output, terms); },
            [&](Forward& worker, Chunk chunk, int64_t) { worker.run(schedule, chunk); });
        for (int64_t c = 0; c < problem->candidates; c++) {
            if (!is_empty(*problem, c)) continue;
            std::fill_n(output + c * problem->dim, problem->dim, 0.0f);
            if (!problem->softmax) continue;
            terms[c] = -std::numeric_limits<float>::infinity();
            terms[problem->candidates + c] = 0.0f;
        }
    });
}

// Writes query_gradient [candidates, dim], behavior_gradient [behaviors, dim] and the other gradients.
extern "C" int din_backward(
    const Problem* problem, const float* gradient, const float* output, const float* terms,
    float* query_gradient, float* behavior_gradient, const Outputs* outputs) {
    if (!problem->has_windows()) return kOutside;
    return guarded([&] {
        const Unit unit(*problem);
        differentiate(
            *problem, unit,
            {gradient, output, terms, nullptr, nullptr, query_gradient, behavior_gradient}, *outputs);
    });
}

// Writes mean and variance [width] of the last layer, which has no activation, over all pairs.
extern "C" int din_moments(const Problem* problem, float* mean, float* variance) {
    if (!problem->has_windows()) return kOutside;
    return guarded([&] {
        const Unit unit(*problem);
        const Schedule schedule(*problem, false);
        std::vector<Spread> parts(schedule.chunks.size(), Spread(unit));
        run_chunks(
            *problem, schedule, [&] { return MomentsForward(*problem, unit, schedule.longest); },
            [&](MomentsForward& worker, Chunk chunk, int64_t part) {
                worker.run(schedule, chunk, parts[part]);
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
    if (!problem->has_windows()) return kOutside;
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
