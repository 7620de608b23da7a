// What is done to one feature with the numbers that a network gives for it, and its pullback: formula by formula what
// the host does (flow-nets/src/transformers).
#include "device.cuh"

__device__ __forceinline__ float logistic(float x) {
    const float e = expf(-fabsf(x));
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}

// The numbers of a feature are own[k · step]. From CUSTOM on they are those that flows bring: src/snippets.rs puts
// their text, each in a namespace of its own, before this one, and lists them with their numbers of parameters.
enum { ADDITIVE, AFFINE, SIGMOID, SPLINE, CUSTOM };
#ifndef SNIPPETS
#define SNIPPETS(CASE)
#endif

// Of a spline: bins, half the interval, a bin's size for one unit of softmax and at the least, what is added to a
// slope's number, the least slope.
enum { BINS, TAIL, SCALE, LEAST, OFFSET, LEAST_SLOPE };

__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

__device__ __forceinline__ void softmax(float* own, int step, int count) {
    float largest = own[0], sum = 0;
#pragma unroll 1
    for (int k = 1; k < count; k++) largest = fmaxf(largest, own[k * step]);
#pragma unroll 1
    for (int k = 0; k < count; k++) sum += own[k * step] = expf(own[k * step] - largest);
    const float share = 1.0f / sum;
#pragma unroll 1
    for (int k = 0; k < count; k++) own[k * step] *= share;
}

// A bin of a spline: the softmax of all bins before it and its own, for widths and heights; the numbers of the slopes
// at its ends; its index.
struct Bin {
    float before_w, own_w, before_h, own_h, left, right;
    int index;
};

// The last bin that starts at or below `at`, along y for the inverse and along x otherwise. Numbers of widths and
// heights become their softmax.
__device__ __forceinline__ Bin locate(const float* settings, float* own, int step, bool inverse, float at) {
    const int bins = static_cast<int>(settings[BINS]);
    float *heights = own + bins * step, *slopes = heights + bins * step;
    softmax(own, step, bins);
    softmax(heights, step, bins);
    Bin bin = {0, own[0], 0, heights[0], 0, slopes[0], 0};
    float sum_w = bin.own_w, sum_h = bin.own_h;
#pragma unroll 1
    for (int k = 1; k < bins; k++) {
        const float w = own[k * step], h = heights[k * step];
        // The number of the last knot is zero, like that of the first.
        if (at >= settings[SCALE] * (inverse ? sum_h : sum_w) + (settings[LEAST] * k - settings[TAIL]))
            bin = {sum_w, w, sum_h, h, slopes[(k - 1) * step], k + 1 < bins ? slopes[k * step] : 0.0f, k};
        sum_w += w;
        sum_h += h;
    }
    return bin;
}

// A bin's lower left corner, its size, and the slopes at its ends.
struct Segment {
    float left, bottom, width, height, slope_left, slope_right;
    __device__ __forceinline__ Segment(const float* settings, const Bin& bin)
        : left(settings[SCALE] * bin.before_w + (settings[LEAST] * bin.index - settings[TAIL])),
          bottom(settings[SCALE] * bin.before_h + (settings[LEAST] * bin.index - settings[TAIL])),
          width(settings[SCALE] * bin.own_w + settings[LEAST]), height(settings[SCALE] * bin.own_h + settings[LEAST]),
          slope_left(settings[LEAST_SLOPE] + softplus(bin.left + settings[OFFSET])),
          slope_right(settings[LEAST_SLOPE] + softplus(bin.right + settings[OFFSET])) {}
};

// What both directions and the pullback compute of a place in a bin.
struct Place {
    float theta, rest, both, mean, excess, denominator, numerator;
    __device__ __forceinline__ Place(const Segment& s, float at)
        : theta(fmaxf(fminf(at, 1.0f), 0.0f)), rest(1.0f - theta), both(theta * rest), mean(s.height / s.width),
          excess((s.slope_left - mean) + (s.slope_right - mean)), denominator(mean + excess * both),
          numerator(1.0f + (s.slope_right - 1.0f) * theta * theta + 2.0f * (mean - 1.0f) * both + (s.slope_left - 1.0f) * rest * rest) {}
    __device__ __forceinline__ float log_slope() const {
        const float ratio = mean / denominator;
        return logf(ratio * numerator * ratio);
    }
};

// x → y, or y → x; gives ln of the slope.
__device__ __forceinline__ float move_by_spline(const float* settings, float* own, int step, bool inverse, float& value) {
    const float tail = settings[TAIL], along_x = value;
    if (!(value >= -tail && value <= tail)) return 0;
    const Segment s(settings, locate(settings, own, step, inverse, value));
    float log_slope;
    if (inverse) {
        const float along = value - s.bottom, part = fmaxf(fminf(along / s.height, 1.0f), 0.0f), mean = s.height / s.width;
        const float excess = (s.slope_left - mean) + (s.slope_right - mean), a = (mean - s.slope_left) + part * excess, b = s.slope_left - part * excess;
        const float root = sqrtf(fmaxf(b * b + 4.0f * mean * part * a, 0.0f));
        // Of the two forms of the root the one that subtracts nothing.
        const float shallower = b < 0 ? (root - b) / (2.0f * mean * a * part) : 2.0f / (b + root);
        log_slope = -Place(s, along * shallower / s.width).log_slope();
        value = value + (s.left - s.bottom) + along * (shallower - 1.0f);
    } else {
        const float along = along_x - s.left;
        const Place at(s, along / s.width);
        const float steeper = (at.mean * ((at.mean - 1.0f) * at.theta + (s.slope_left - 1.0f) * at.rest) - at.excess * at.both) / at.denominator;
        log_slope = at.log_slope();
        value = along_x + (s.bottom - s.left) + along * steeper;
    }
    value = fmaxf(fminf(value, tail), -tail);
    return log_slope;
}

// ∂L/∂ of a softmax's numbers, which take the place of the softmax: what bins before the one at hand get, which move
// its corner, and what it gets itself.
__device__ __forceinline__ void pull_softmax(float* own, int step, int count, int index, float corner, float size, float before, float here, float scale) {
    const float mean = corner * before + size * here;
#pragma unroll 1
    for (int k = 0; k < count; k++) own[k * step] *= scale * ((k < index ? corner : k == index ? size : 0.0f) - mean);
}

__device__ __forceinline__ float pull_spline(const float* settings, float* own, int step, float x, float g, float for_log_slope) {
    const int bins = static_cast<int>(settings[BINS]);
    const float tail = settings[TAIL];
    if (!(x >= -tail && x <= tail)) {
        for (int k = 0; k < 3 * bins - 1; k++) own[k * step] = 0;
        return g;
    }
    const Bin bin = locate(settings, own, step, false, x);
    const Segment s(settings, bin);
    const Place at(s, (x - s.left) / s.width);
    const float theta = at.theta, rest = at.rest, both = at.both, mean = at.mean, tilt = 1.0f - 2.0f * theta, per_denominator = 1.0f / at.denominator;
    // F = (y − y₀)/h and its derivatives, and those of ln(dy/dx) = 2 ln s + ln numerator − 2 ln denominator.
    const float fraction = theta * (mean * theta + s.slope_left * rest) * per_denominator, for_fraction = g * s.height * per_denominator;
    const float for_numerator = for_log_slope / at.numerator, for_denominator = 2.0f * for_log_slope * per_denominator;
    const float for_theta = for_fraction * mean * (at.numerator * per_denominator)
        + for_numerator * 2.0f * (s.slope_right * theta + mean * tilt - s.slope_left * rest) - for_denominator * at.excess * tilt;
    const float for_x = for_theta / s.width;
    const float for_mean = (for_fraction * (theta * theta - fraction * (1.0f - 2.0f * both)) + 2.0f * (for_log_slope / mean + for_numerator * both)
        - for_denominator * (1.0f - 2.0f * both)) / s.width;
    const float slope_left = for_fraction * both * (1.0f - fraction) + for_numerator * rest * rest - for_denominator * both;
    const float slope_right = for_numerator * theta * theta - for_fraction * both * fraction - for_denominator * both;
    const float for_left = slope_left * logistic(bin.left + settings[OFFSET]), for_right = slope_right * logistic(bin.right + settings[OFFSET]);
    float *heights = own + bins * step, *slopes = heights + bins * step;
    pull_softmax(own, step, bins, bin.index, -for_x, -for_x * theta - for_mean * mean, bin.before_w, bin.own_w, settings[SCALE]);
    pull_softmax(heights, step, bins, bin.index, g, g * fraction + for_mean, bin.before_h, bin.own_h, settings[SCALE]);
#pragma unroll 1
    for (int k = 0; k < bins - 1; k++) slopes[k * step] = bin.index == k + 1 ? for_left : bin.index == k ? for_right : 0.0f;
    return for_x;
}

// The x with map(x) = y of an increasing map of all numbers, by Newton's method within a bracket, as on the host
// (flow-api/src/rows/element_wise.rs); what is not found is no number, which is noticed.
template <class F> __device__ float solve(F map, float y, float& log_slope) {
    const float infinity = __uint_as_float(0x7f800000u), epsilon = 1.1920929e-7f;
    float below = -infinity, above = infinity, step = 1, x = y, before = infinity, least = infinity, best = y;
    for (int i = 0; i < 500; i++) {
        float slope;
        const float error = map(x, slope) - y, size = fabsf(error), newton = x - error * expf(-slope);
        if (size < least) least = size, best = x, log_slope = slope;
        if (error < 0)
            below = x;
        else if (error > 0)
            above = x;
        else
            break;
        const bool gains = size <= 0.5f * before, bracketed = below > -infinity && above < infinity;
        before = size;
        step = fmaxf(2 * step, 4 * epsilon * fabsf(x));
        const float cut = bracketed ? 0.5f * below + 0.5f * above : above < infinity ? above - step : below + step;
        x = newton > below && newton < above && gains ? newton : cut;
        if (!(x > below && x < above)) break;
    }
    return least <= 64 * epsilon * (1 + fabsf(y) + expf(log_slope) * fabsf(best)) ? best : __uint_as_float(0x7fffffffu);
}

// x → y, or y → x for the inverse; gives ln of the slope. The numbers may change.
__device__ __forceinline__ float move(int transformer, const float* settings, float* own, int step, bool inverse, float& value) {
    switch (transformer) {
    case ADDITIVE: value = inverse ? value - own[0] : value + own[0]; return 0;
    case AFFINE: {
        const float bound = settings[0], s = bound * tanhf(own[0] / bound), t = own[step];
        value = inverse ? (value - t) * expf(-s) : value * expf(s) + t;
        return inverse ? -s : s;
    }
    case SIGMOID: {
        const float most = settings[0], scale = most / (1.0f + (most - 1.0f) * expf(-own[0])), t = own[step];
        value = inverse ? value / scale - t : (value + t) * scale;
        return inverse ? -logf(scale) : logf(scale);
    }
    default: return move_by_spline(settings, own, step, inverse, value);
#define CASE(I, COUNT)                                                                                                                 \
    case CUSTOM + I: {                                                                                                                 \
        float p[COUNT + 1], log_slope = 0;                                                                                             \
        for (int k = 0; k < COUNT; k++) p[k] = own[k * step];                                                                          \
        value = inverse ? snippet_##I::inverse(value, p, settings, log_slope) : snippet_##I::forward(value, p, settings, log_slope);   \
        return inverse ? -log_slope : log_slope;                                                                                       \
    }
        SNIPPETS(CASE)
#undef CASE
    }
}

// ∂L/∂y → ∂L/∂x, given x and ∂L/∂ln of the slope; ∂L/∂ of the numbers take their place.
__device__ __forceinline__ float pull(int transformer, const float* settings, float* own, int step, float x, float g, float for_log_slope) {
    switch (transformer) {
    case ADDITIVE: own[0] = g; return g;
    case AFFINE: {
        const float bound = settings[0], tanh = tanhf(own[0] / bound), scale = expf(bound * tanh);
        own[0] = (g * x * scale + for_log_slope) * (1.0f - tanh) * (1.0f + tanh);
        own[step] = g;
        return g * scale;
    }
    case SIGMOID: {
        const float most = settings[0], scale = most / (1.0f + (most - 1.0f) * expf(-own[0]));
        own[0] = (g * (x + own[step]) * scale + for_log_slope) * (1.0f - scale / most);
        own[step] = g * scale;
        return g * scale;
    }
    default: return pull_spline(settings, own, step, x, g, for_log_slope);
#define CASE(I, COUNT)                                                                    \
    case CUSTOM + I: {                                                                    \
        float p[COUNT + 1], for_p[COUNT + 1] = {};                                        \
        for (int k = 0; k < COUNT; k++) p[k] = own[k * step];                             \
        g = snippet_##I::pullback(x, p, settings, g, for_log_slope, for_p);               \
        for (int k = 0; k < COUNT; k++) own[k * step] = for_p[k];                         \
        return g;                                                                         \
    }
        SNIPPETS(CASE)
#undef CASE
    }
}
