// The activation unit in the layouts that the products want, and its gradient.
#pragma once

#include <cmath>
#include <vector>

#include "din_problem.h"
#include "vector.h"

// A hidden layer; widths ending in _pad are whole vectors, and what pads them is zero.
struct Layer {
    int64_t in, out, in_pad, out_pad, activation;
    Floats bias, alpha, rate, shift;  // [out_pad]; Dice's gate is sigmoid(rate z + shift)
    Floats forward, backward;         // [in, out_pad] and [out, in_pad]; the first layer has none
};

static Floats padded(const float* values, int64_t count, int64_t width) {
    Floats result(width, 0.0f);
    std::copy(values, values + count, result.begin());
    return result;
}

struct Unit {
    int64_t dim, dim_pad;
    std::vector<Layer> layers;
    // blocks of the first weight, collapsed (first_layer.py): [dim, out_pad], and [out, dim_pad]
    Floats candidate, behavior, product, candidate_t, behavior_t, product_t;
    Floats score;  // [out_pad of the last layer]
    float score_bias = 0.0f;

    explicit Unit(const Problem& problem) : dim(problem.dim), dim_pad(round_up(problem.dim)) {
        int64_t in = 4 * dim;
        for (int64_t l = 0; l < problem.layers; l++) {
            Layer layer;
            layer.in = in, layer.in_pad = round_up(in);
            layer.out = problem.widths[l], layer.out_pad = round_up(problem.widths[l]);
            const int64_t out = layer.out;
            const bool bare = !problem.scored && l == problem.layers - 1;
            layer.activation = bare ? kNone : problem.activation;
            layer.bias = padded(problem.biases[l], out, layer.out_pad);
            if (layer.activation == kPRelu || layer.activation == kDice)
                layer.alpha = padded(problem.alphas[l], out, layer.out_pad);
            if (layer.activation == kDice) add_moments(layer, problem.means[l], problem.variances[l]);
            if (l > 0) add_weight(layer, problem.weights[l]);
            layers.push_back(std::move(layer));
            in = out;
        }
        collapse(problem.weights[0]);
        if (!problem.scored) return;
        score = padded(problem.weights[problem.layers], in, round_up(in));
        score_bias = problem.biases[problem.layers][0];
    }

   private:
    static void add_moments(Layer& layer, const float* mean, const float* variance) {
        layer.rate.assign(layer.out_pad, 0.0f);
        layer.shift.assign(layer.out_pad, 0.0f);
        for (int64_t i = 0; i < layer.out; i++) {
            layer.rate[i] = 1.0f / std::sqrt(variance[i] + 1e-8f);  // unit.py: DICE_EPSILON
            layer.shift[i] = -mean[i] * layer.rate[i];
        }
    }

    static void add_weight(Layer& layer, const float* weight) {
        layer.forward.assign(layer.in * layer.out_pad, 0.0f);
        layer.backward.assign(layer.out * layer.in_pad, 0.0f);
        for (int64_t o = 0; o < layer.out; o++)
            for (int64_t i = 0; i < layer.in; i++)
                layer.forward[i * layer.out_pad + o] = layer.backward[o * layer.in_pad + i] =
                    weight[o * layer.in + i];
    }

    void collapse(const float* weight) {
        const Layer& layer = layers[0];
        for (Floats* block : {&candidate, &behavior, &product}) block->assign(dim * layer.out_pad, 0.0f);
        for (Floats* block : {&candidate_t, &behavior_t, &product_t})
            block->assign(layer.out * dim_pad, 0.0f);
        for (int64_t o = 0; o < layer.out; o++)
            for (int64_t d = 0; d < dim; d++) {
                const float* row = weight + o * 4 * dim + d;
                const int64_t at = d * layer.out_pad + o, at_t = o * dim_pad + d;
                candidate[at] = candidate_t[at_t] = row[0] + row[2 * dim];
                behavior[at] = behavior_t[at_t] = row[dim] - row[2 * dim];
                product[at] = product_t[at_t] = row[3 * dim];
            }
    }
};

// Where the gradients of weights, biases, alphas, means and variances go: one tensor a layer.
struct Outputs {
    float* const* weights;
    float* const* biases;
    float* const* alphas;
    float* const* means;
    float* const* variances;
};

// Sums of the gradient over some pairs, in the layouts of Unit. They lie in someone else's memory,
// one behind the other; without any, only their size is known.
struct UnitGradient {
    float *candidate, *behavior, *product, *score, *score_bias;
    std::vector<float*> weight, bias, alpha;  // of every hidden layer; the first has no weight here
    std::vector<float*> lift, spread;         // of Dice: sums of g and g s, g the gradient of s
    int64_t size = 0;                         // all of them

    UnitGradient(const Unit& unit, float* memory) {
        const auto take = [&](int64_t count) {
            float* block = memory ? memory + size : nullptr;
            // every block begins on a cache line
            size += (count + 15) / 16 * 16;
            return block;
        };
        const int64_t first = unit.dim * unit.layers[0].out_pad;
        for (float** block : {&candidate, &behavior, &product}) *block = take(first);
        score = take(unit.score.size());
        score_bias = take(1);
        for (const Layer& layer : unit.layers) {
            weight.push_back(take(layer.backward.size()));
            bias.push_back(take(layer.out_pad));
            alpha.push_back(take(layer.alpha.size()));
            lift.push_back(take(layer.rate.size()));
            spread.push_back(take(layer.rate.size()));
        }
    }

    // into tensors with the shapes of ActivationUnit
    void write(const Unit& unit, const Outputs& outputs) const {
        const auto [weights, biases, alphas, means, variances] = outputs;
        write_first(unit, weights[0]);
        const size_t layers = unit.layers.size();
        for (size_t l = 0; l < layers; l++) {
            const Layer& layer = unit.layers[l];
            if (l > 0)
                for (int64_t o = 0; o < layer.out; o++)
                    std::copy_n(&weight[l][o * layer.in_pad], layer.in, weights[l] + o * layer.in);
            std::copy_n(bias[l], layer.out, biases[l]);
            if (!layer.alpha.empty()) std::copy_n(alpha[l], layer.out, alphas[l]);
            // s = (z - mean) rate, so ds = -rate dmean - s rate^2 / 2 dvariance
            for (int64_t i = 0; i < layer.out && !layer.rate.empty(); i++) {
                means[l][i] = -layer.rate[i] * lift[l][i];
                variances[l][i] = -0.5f * layer.rate[i] * layer.rate[i] * spread[l][i];
            }
        }
        if (unit.score.empty()) return;
        std::copy_n(score, unit.layers.back().out, weights[layers]);
        biases[layers][0] = *score_bias;
    }

   private:
    void write_first(const Unit& unit, float* to) const {
        const int64_t dim = unit.dim;
        for (int64_t o = 0; o < unit.layers[0].out; o++)
            for (int64_t d = 0; d < dim; d++) {
                const int64_t at = d * unit.layers[0].out_pad + o;
                float* row = to + o * 4 * dim + d;
                row[0] = candidate[at];
                row[dim] = behavior[at];
                row[2 * dim] = candidate[at] - behavior[at];
                row[3 * dim] = product[at];
            }
    }
};
