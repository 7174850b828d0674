// Mean and variance of the last layer over the pairs of a batch, which Dice needs before it can go on.
#pragma once

#include "din_tile.h"

// Of some pairs: their number, and for each unit mean and sum of squared deviations, as doubles.
struct Spread {
    int64_t pairs = 0;
    std::vector<double> mean, squares;

    explicit Spread(const Unit& unit)
        : mean(unit.layers.back().out_pad, 0.0), squares(unit.layers.back().out_pad, 0.0) {}

    // a tile's own mean first: the difference of two large sums would lose small variances
    void add_rows(const float* values, int64_t rows) {
        const int64_t width = static_cast<int64_t>(mean.size());
        for (int64_t v = 0; v < width; v += kLanes) {
            Vec total{}, deviations{};
            for (int64_t at = v; at < rows * width; at += width) total += load(values + at);
            const Vec own = total / static_cast<float>(rows);
            for (int64_t at = v; at < rows * width; at += width) {
                const Vec difference = load(values + at) - own;
                deviations += difference * difference;
            }
            for (int64_t i = 0; i < kLanes; i++) merge(v + i, rows, own[i], deviations[i]);
        }
        pairs += rows;
    }

    void operator+=(const Spread& other) {
        for (size_t i = 0; i < mean.size() && other.pairs > 0; i++)
            merge(i, other.pairs, other.mean[i], other.squares[i]);
        pairs += other.pairs;
    }

    void write(const Unit& unit, float* means, float* variances) const {
        for (int64_t i = 0; i < unit.layers.back().out; i++) {
            means[i] = static_cast<float>(mean[i]);
            variances[i] = static_cast<float>(squares[i] / std::max<int64_t>(pairs, 1));
        }
    }

   private:
    void merge(size_t i, int64_t more, double other_mean, double other_squares) {
        const double share = static_cast<double>(more) / (pairs + more);
        const double difference = other_mean - mean[i];
        squares[i] += other_squares + difference * difference * pairs * share;
        mean[i] += difference * share;
    }
};

struct MomentsForward {
    Tile tile;

    MomentsForward(const Problem& problem, const Unit& unit, int64_t longest)
        : tile(problem, unit, longest, false) {}

    void run(const Schedule& schedule, Chunk chunk, Spread& into) {
        tile.walk(schedule, chunk, [&] {
            tile.fill_layers<false>();
            into.add_rows(tile.hidden.back().data(), tile.rows);
        });
    }
};
