// p: the skewness, and the logarithm of the tails' weight.
__device__ float ln_cosh(float x) { return fabsf(x) + log1pf(expf(-2.0f * fabsf(x))) - 0.69314718f; }

__device__ float forward(float x, const float* p, const float*, float& log_slope) {
    const float arc = asinhf(x), bent = expf(p[1]) * arc - p[0];
    log_slope = p[1] + ln_cosh(bent) - ln_cosh(arc);
    return sinhf(bent);
}

__device__ float inverse(float y, const float* p, const float*, float& log_slope) {
    const float bent = asinhf(y), arc = (bent + p[0]) / expf(p[1]);
    log_slope = p[1] + ln_cosh(bent) - ln_cosh(arc);
    return sinhf(arc);
}

__device__ float pullback(float x, const float* p, const float*, float for_y, float for_log_slope, float* for_p) {
    const float arc = asinhf(x), weight = expf(p[1]), bent = weight * arc - p[0], per_x = 1.0f / hypotf(1.0f, x);
    const float for_bent = for_y * coshf(bent) + for_log_slope * tanhf(bent);
    for_p[0] = -for_bent;
    for_p[1] = for_bent * weight * arc + for_log_slope;
    return (for_bent * weight - for_log_slope * tanhf(arc)) * per_x;
}
