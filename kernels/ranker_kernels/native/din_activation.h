// Hidden activations over rows of a tile, with what their backward needs.
#pragma once

#include "din_unit.h"

// z [rows, out_pad] becomes act(z + bias). For the backward, slope is dh/dz and term dh/dalpha;
// sigmoid needs neither.
template <bool kKeep>
static void activate(
    int64_t activation, const Layer& layer, const float* bias, float* z, float* slope, float* term,
    int64_t rows) {
    const int64_t width = layer.out_pad;
    for (int64_t v = 0; v < width; v += kLanes) {
        const Vec shift = load(bias + v);
        if (activation == kSigmoid) {
            for (int64_t at = v; at < rows * width; at += width)
                store(z + at, sigmoid(load(z + at) + shift));
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
                const Vec gate = sigmoid(x * rate + center);
                const Vec factor = alpha + open * gate;
                store(z + at, x * factor);
                if (kKeep) {
                    store(slope + at, factor + open * rate * x * gate * (1.0f - gate));
                    store(term + at, x * (1.0f - gate));
                }
            }
        }
    }
}

// gradient [rows, out_pad] of h becomes that of z; adds up alpha's
static void activate_backward(
    int64_t activation, int64_t width, const float* h, const float* slope, const float* term,
    float* gradient, float* alpha, int64_t rows) {
    for (int64_t v = 0; v < width; v += kLanes) {
        if (activation == kSigmoid) {
            for (int64_t at = v; at < rows * width; at += width) {
                const Vec x = load(h + at);
                store(gradient + at, load(gradient + at) * (x * (1.0f - x)));
            }
            continue;
        }
        Vec total{};
        for (int64_t at = v; at < rows * width; at += width) {
            const Vec x = load(gradient + at);
            total += x * load(term + at);
            store(gradient + at, x * load(slope + at));
        }
        store(alpha + v, load(alpha + v) + total);
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
