__device__ float forward(float x, const float*, const float*, float& log_slope) {
    log_slope = -2.0f * log1pf(fabsf(x));
    return x / (1.0f + fabsf(x));
}

__device__ float inverse(float y, const float*, const float*, float& log_slope) {
    const float rest = 1.0f - fabsf(y);
    log_slope = 2.0f * logf(rest);
    return y / rest;
}

__device__ float pullback(float x, const float*, const float*, float for_y, float for_log_slope, float*) {
    const float size = 1.0f + fabsf(x), sign = x < 0 ? -1.0f : 1.0f;
    return for_y / (size * size) - 2.0f * sign * for_log_slope / size;
}
