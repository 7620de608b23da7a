// s: the ends of the interval.
__device__ float forward(float x, const float*, const float* s, float& log_slope) {
    const float below = logf(x - s[0]), above = logf(s[1] - x);
    log_slope = logf(s[1] - s[0]) - below - above;
    return below - above;
}

__device__ float inverse(float y, const float*, const float* s, float& log_slope) {
    const float width = s[1] - s[0], small = expf(-fabsf(y)), part = width * small / (1.0f + small);
    log_slope = fabsf(y) + 2.0f * log1pf(small) - logf(width);
    return y < 0 ? s[0] + part : s[1] - part;
}

__device__ float pullback(float x, const float*, const float* s, float for_y, float for_log_slope, float*) {
    const float below = 1.0f / (x - s[0]), above = 1.0f / (s[1] - x);
    return for_y * (below + above) + for_log_slope * (above - below);
}
