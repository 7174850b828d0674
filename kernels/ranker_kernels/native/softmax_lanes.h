// The softmax of many rows at once. Scores [count, lanes] have a row of the softmax in every lane,
// and what it sums over one below the other; `of_lane` has a number for each lane.
#pragma once

#include "vector.h"

// raises each lane's number to its highest score
static inline void find_highest(const float* scores, int64_t count, int64_t lanes, float* of_lane) {
    for (int64_t v = 0; v < lanes; v += kLanes) {
        Vec highest = load(of_lane + v);
        for (int64_t i = 0; i < count; i++) {
            const Vec score = load(scores + i * lanes + v);
            // what is no number ends up in the sum of exponentials
            highest = score <= highest ? highest : score;
        }
        store(of_lane + v, highest);
    }
}

// scores become exp(score - of_lane)
static inline void exponentiate(float* scores, int64_t count, int64_t lanes, const float* of_lane) {
    for (int64_t v = 0; v < lanes; v += kLanes) {
        const Vec base = load(of_lane + v);
        for (int64_t i = 0; i < count; i++) {
            float* at = scores + i * lanes + v;
            store(at, exp(load(at) - base));
        }
    }
}

// adds up the weights of each lane
static inline void add_up(const float* weights, int64_t count, int64_t lanes, float* of_lane) {
    for (int64_t v = 0; v < lanes; v += kLanes) {
        Vec total{};
        for (int64_t i = 0; i < count; i++) total += load(weights + i * lanes + v);
        store(of_lane + v, load(of_lane + v) + total);
    }
}

// gradients of weights become those of scores: weight (gradient - of_lane)
static inline void differentiate_softmax(
    const float* weights, float* gradients, int64_t count, int64_t lanes, const float* of_lane) {
    for (int64_t v = 0; v < lanes; v += kLanes) {
        const Vec base = load(of_lane + v);
        for (int64_t at = v; at < count * lanes; at += lanes)
            store(gradients + at, load(weights + at) * (load(gradients + at) - base));
    }
}
