// Multi-head attention of candidates to windows of rows on CPUs, forward and backward, for float32:
// the same function as blocked.py.
//
// Candidates with nearly the same window form a group. Its rows (candidates times heads) are the
// lanes of vectors and meet a tile of behaviours at a time, in cache; a running maximum makes it an
// online softmax, and the backward computes a tile's weights again. Groups that see a common
// behaviour belong to one chunk, whose sums have one order: the bits do not know the number of threads.

#include <cmath>
#include <limits>

#include "parallel.h"
#include "softmax_lanes.h"
#include "window_walk.h"

namespace {

constexpr int64_t kWorthAThread = 1 << 16;  // scores
constexpr float kLowest = std::numeric_limits<float>::lowest();

// Pools the windows of one group after the other.
struct Forward {
    Walk walk;
    PaddedRows values;
    float *output, *normalizer;
    Floats pooled;                  // [rows, width padded]
    Floats highest, before, total;  // [pad]

    Forward(const AttentionProblem& given, float* output, float* normalizer)
        : walk(given), values(given.values, given.width), output(output), normalizer(normalizer),
          pooled(walk.first.size() * values.pad), highest(walk.first.size()),
          before(walk.first.size()), total(walk.first.size()) {}

    void run(const WindowGroup& group) {
        walk.enter(group);
        std::fill_n(pooled.begin(), walk.rows * values.pad, 0.0f);
        std::fill_n(highest.begin(), walk.pad, kLowest);
        std::fill_n(total.begin(), walk.pad, 0.0f);
        walk.run([&] { pool(); });
        const int64_t width = values.width;
        for (int64_t r = 0; r < walk.rows; r++) {
            const float* from = &pooled[r * values.pad];
            float* to = output + walk.number(r) * width;
            for (int64_t v = 0; v < width; v++) to[v] = from[v] / total[r];
            normalizer[walk.number(r)] = highest[r] + std::log(total[r]);
        }
    }

   private:
    void pool() {
        const int64_t count = walk.count, pad = walk.pad;
        float* scores = walk.scores.data();
        walk.hide(kLowest);
        std::copy_n(highest.begin(), pad, before.begin());
        find_highest(scores, count, pad, highest.data());
        if (walk.begin > walk.group->begin) shrink();
        exponentiate(scores, count, pad, highest.data());
        walk.hide(0.0f);
        add_up(scores, count, pad, total.data());
        multiply<true>(
            {scores, 1, pad}, values.read(walk.begin, count), values.pad, pooled.data(), values.pad,
            walk.rows, values.pad, count);
    }

    // what was pooled before follows a new maximum
    void shrink() {
        exponentiate(before.data(), 1, walk.pad, highest.data());
        for (int64_t r = 0; r < walk.rows; r++) {
            total[r] *= before[r];
            if (before[r] == 1.0f) continue;
            float* of_row = &pooled[r * values.pad];
            for (int64_t v = 0; v < values.pad; v++) of_row[v] *= before[r];
        }
    }
};

// Adds to the gradients of one group after the other.
struct Backward {
    Walk walk;
    PaddedRows keys, values;
    PaddedSums of_keys, of_values;
    AttentionUpstream upstream;
    AttentionGradients gradients;
    int64_t dim_pad, heads_pad;
    Floats gradient_t, change;         // [width, pad] and [kTile, pad]
    Floats gradient_rows, query_rows;  // [rows, width padded] and [rows, dim padded]
    Floats of_query;                   // [rows, dim padded]
    Floats head_rows, of_bias;         // [rows, heads padded] and [kTile, heads padded]
    Floats delta, normalizer;          // [pad]; delta = <gradient, output>

    Backward(
        const AttentionProblem& given, AttentionUpstream upstream, AttentionGradients gradients)
        : walk(given), keys(given.key_matrix(), given.key_width()),
          values(given.values, given.width), of_keys(gradients.keys, given.dim),
          of_values(gradients.values, given.width), upstream(upstream), gradients(gradients),
          dim_pad(round_up(given.dim)), heads_pad(round_up(given.heads)) {
        const int64_t lanes = static_cast<int64_t>(walk.first.size());
        gradient_t.resize(given.width * lanes), change.resize(kTile * lanes);
        gradient_rows.resize(lanes * values.pad), query_rows.resize(lanes * dim_pad);
        of_query.resize(lanes * dim_pad), delta.resize(lanes), normalizer.resize(lanes);
        if (given.bias) head_rows.resize(lanes * heads_pad), of_bias.resize(kTile * heads_pad);
        for (int64_t r = 0; given.bias && r < lanes; r++)
            head_rows[r * heads_pad + r % given.heads] = 1.0f;
    }

    void run(const WindowGroup& group) {
        const AttentionProblem& given = walk.given;
        walk.enter(group);
        walk.transpose(upstream.gradient, given.width, gradient_t);
        std::fill_n(delta.begin(), walk.pad, 0.0f);
        std::fill_n(of_query.begin(), walk.rows * dim_pad, 0.0f);
        for (int64_t r = 0; r < walk.rows; r++) {
            const int64_t number = walk.number(r);
            const float* gradient = upstream.gradient + number * given.width;
            for (int64_t v = 0; v < given.width; v++)
                delta[r] += gradient[v] * upstream.output[number * given.width + v];
            std::copy_n(gradient, given.width, &gradient_rows[r * values.pad]);
            std::copy_n(given.query + number * given.dim, given.dim, &query_rows[r * dim_pad]);
            normalizer[r] = upstream.normalizer[number];
        }
        walk.run([&] { differentiate(); });
        for (int64_t r = 0; r < walk.rows; r++)
            std::copy_n(
                &of_query[r * dim_pad], given.dim, gradients.query + walk.number(r) * given.dim);
    }

   private:
    void differentiate() {
        const AttentionProblem& given = walk.given;
        const int64_t begin = walk.begin, count = walk.count, pad = walk.pad, rows = walk.rows;
        float* weights = walk.scores.data();
        exponentiate(weights, count, pad, normalizer.data());
        walk.hide(0.0f);
        multiply<false>(
            {given.values + begin * given.width, given.width, 1}, gradient_t.data(), pad,
            change.data(), pad, count, pad, given.width);
        differentiate_softmax(weights, change.data(), count, pad, delta.data());
        float* sums = of_values.open(begin);
        multiply<true>(
            {weights, pad, 1}, gradient_rows.data(), values.pad, sums, values.pad, count,
            values.pad, rows);
        const bool own_keys = given.keys != nullptr;
        multiply<true>(
            {change.data(), pad, 1}, query_rows.data(), dim_pad,
            own_keys ? of_keys.open(begin) : sums, own_keys ? of_keys.pad : values.pad, count,
            dim_pad, rows);
        of_values.close(begin, count);
        if (own_keys) of_keys.close(begin, count);
        multiply<true>(
            {change.data(), 1, pad}, keys.read(begin, count), keys.pad, of_query.data(), dim_pad,
            rows, dim_pad, count);
        if (given.bias) add_bias();
    }

    void add_bias() {
        const int64_t heads = walk.given.heads;
        multiply<false>(
            {change.data(), walk.pad, 1}, head_rows.data(), heads_pad, of_bias.data(), heads_pad,
            walk.count, heads_pad, walk.rows);
        for (int64_t i = 0; i < walk.count; i++)
            for (int64_t h = 0; h < heads; h++)
                gradients.bias[(walk.begin + i) * heads + h] += of_bias[i * heads_pad + h];
    }
};

// Groups of the windows that are not empty, and how many threads they are worth.
struct Schedule {
    std::vector<WindowGroup> groups;
    int64_t threads;

    explicit Schedule(const AttentionProblem& given)
        : groups(group_windows(
              given.seen, given.candidates, 0, std::max<int64_t>(1, kMostRows / given.heads))) {
        int64_t scores = 0;
        for (const WindowGroup& group : groups)
            scores += (group.end - group.begin) * given.heads * group.candidates.size();
        threads = std::clamp<int64_t>(scores / kWorthAThread, 1, given.threads);
    }

    // Returns where chunks begin, of which no two see the same behaviour, and the number of groups.
    std::vector<int64_t> cut() const {
        std::vector<int64_t> cuts;
        int64_t seen = std::numeric_limits<int64_t>::lowest();
        const int64_t count = static_cast<int64_t>(groups.size());
        for (int64_t i = 0; i < count; i++) {
            if (groups[i].begin >= seen) cuts.push_back(i);
            seen = std::max(seen, groups[i].end);
        }
        cuts.push_back(count);
        return cuts;
    }
};

}  // namespace

// Writes output [candidates, heads, width] and normalizer [candidates, heads] of every candidate whose
// window is not empty; the others are the caller's. Returns 0, 1 where memory ran out, or kOutside.
extern "C" int attend(const AttentionProblem* given, float* output, float* normalizer) {
    if (!given->has_windows()) return kOutside;
    return guarded([&] {
        const Schedule schedule(*given);
        std::vector<Forward> workers(schedule.threads, Forward(*given, output, normalizer));
        run_pieces(schedule.groups.size(), schedule.threads, [&](int64_t piece, int64_t worker) {
            workers[worker].run(schedule.groups[piece]);
        });
    });
}

// Writes the gradient of the query, of candidates as above, and adds to the others. Returns as above.
extern "C" int differentiate(
    const AttentionProblem* given, const AttentionUpstream* upstream,
    const AttentionGradients* gradients) {
    if (!given->has_windows()) return kOutside;
    return guarded([&] {
        const Schedule schedule(*given);
        const std::vector<int64_t> cuts = schedule.cut();
        std::vector<Backward> workers(schedule.threads, Backward(*given, *upstream, *gradients));
        run_pieces(cuts.size() - 1, schedule.threads, [&](int64_t piece, int64_t worker) {
            for (int64_t group = cuts[piece]; group < cuts[piece + 1]; group++)
                workers[worker].run(schedule.groups[group]);
        });
    });
}
