// Hidden activations over rows of a tile, with what their backward needs.
#pragma once

#include "din_unit.h"

// Of every pair and unit, for the backward: dh/dz and dh/dalpha (PReLU and Dice), and with
// s = (z - mean) rate dh/ds and s itself (Dice).
struct Derived {
    float *slope = nullptr, *term = nullptr, *lift = nullptr, *standard = nullptr;
};

// a vector in each of some rows becomes sigmoid(z + shift)
template <int kRows>
static inline void apply_sigmoid(float* z, int64_t width, Vec shift) {
    Vec x[kRows];
    for (int r = 0; r < kRows; r++) x[r] = load(z + r * width) + shift;
    sigmoid(x);
    for (int r = 0; r < kRows; r++) store(z + r * width, x[r]);
}

// z [rows, out_pad] becomes act(z + bias)
template <bool kKeep>
static void activate(
    const Layer& layer, const float* bias, float* z, Derived derived, int64_t rows) {
    const int64_t width = layer.out_pad, activation = layer.activation;
    const auto [slope, term, lift, standard] = derived;
    for (int64_t v = 0; v < width; v += kLanes) {
        const Vec shift = load(bias + v);
        if (activation == kSigmoid) {
            int64_t at = v;
            for (; at + width < rows * width; at += 2 * width) apply_sigmoid<2>(z + at, width, shift);
            if (at < rows * width) apply_sigmoid<1>(z + at, width, shift);
        } else if (activation == kNone) {
            for (int64_t at = v; at < rows * width; at += width) store(z + at, load(z + at) + shift);
        } else if (activation == kPRelu) {
            const Vec alpha = load(&layer.alpha[v]), one = splat(1.0f);
            for (int64_t at = v; at < rows * width; at += width) {
                const Vec x = load(z + at) + shift;
                const Vec factor = x > 0.0f ? one : alpha;
                store(z + at, x * factor);
                if (kKeep) {
                    store(slope + at, factor);
                    store(term + at, x > 0.0f ? Vec{} : x);
                }
            }
        } else {
            const Vec alpha = load(&layer.alpha[v]), open = 1.0f - alpha;
            const Vec rate = load(&layer.rate[v]), center = load(&layer.shift[v]);
            for (int64_t at = v; at < rows * width; at += width) {
                const Vec x = load(z + at) + shift;
                const Vec s = x * rate + center;
                Vec gates[] = {s};
                sigmoid(gates);
                const Vec gate = gates[0];
                const Vec factor = alpha + open * gate;
                store(z + at, x * factor);
                if (kKeep) {
                    const Vec closed = 1.0f - gate;
                    store(slope + at, factor + open * rate * x * gate * closed);
                    store(term + at, x * closed);
                    store(lift + at, open * x * gate * closed);
                    store(standard + at, s);
                }
            }
        }
    }
}

// Where the sums over pairs go, [out_pad]: of alpha's gradient, and UnitGradient's lift and spread.
struct ActivationSums {
    float *alpha, *lift, *spread;
};

// gradient [rows, out_pad] of h becomes that of z
static void activate_backward(
    const Layer& layer, const float* h, Derived derived, float* gradient, ActivationSums sums,
    int64_t rows) {
    const int64_t width = layer.out_pad;
    const auto [slope, term, lift, standard] = derived;
    if (layer.activation == kNone) return;
    for (int64_t v = 0; v < width; v += kLanes) {
        if (layer.activation == kSigmoid) {
            for (int64_t at = v; at < rows * width; at += width) {
                const Vec x = load(h + at);
                store(gradient + at, load(gradient + at) * (x * (1.0f - x)));
            }
            continue;
        }
        Vec alpha{}, raised{}, spread{};
        for (int64_t at = v; at < rows * width; at += width) {
            const Vec x = load(gradient + at);
            alpha += x * load(term + at);
            if (layer.activation == kDice) {
                const Vec of_standard = x * load(lift + at);
                raised += of_standard;
                spread += of_standard * load(standard + at);
            }
            store(gradient + at, x * load(slope + at));
        }
        store(sums.alpha + v, load(sums.alpha + v) + alpha);
        if (layer.activation != kDice) continue;
        store(sums.lift + v, load(sums.lift + v) + raised);
        store(sums.spread + v, load(sums.spread + v) + spread);
    }
}

// adds the columns of [rows, width] up
static void add_columns(const float* values, float* to, int64_t width, int64_t rows) {
    for (int64_t v = 0; v < width; v += kLanes) {
        Vec total{};
        for (int64_t at = v; at < rows * width; at += width) total += load(values + at);
        store(to + v, load(to + v) + total);
    }
}
