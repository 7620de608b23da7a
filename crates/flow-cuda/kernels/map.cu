// The kernels of a pass in either direction; side.cu stands before them.

// Budget: side_of_32 128 registers
// Budget: side_of_16 128 registers
// Budget: sum_log_dets 64 registers

KERNEL(side_of_32, const int* description, const float* weights, const float* conditions, const float* values, float* to, float* log_dets,
       int rows) {
    side<2, false>(description, weights, conditions, values, to, log_dets, rows, nullptr, nullptr);
}

// For rows and networks so wide that 32 rows do not fit a block's shared memory.
KERNEL(side_of_16, const int* description, const float* weights, const float* conditions, const float* values, float* to, float* log_dets,
       int rows) {
    side<1, false>(description, weights, conditions, values, to, log_dets, rows, nullptr, nullptr);
}

// The log-dets of whole samples, a block each: `sides` has for every side where its rows' log-dets begin, in samples of
// one row, and how many rows a sample has there. Every thread has its part of the rows, and the first adds up the
// parts.
KERNEL(sum_log_dets, const int* sides, int count, const float* rows, int capacity, double constant, float* log_dets) {
    SHARED(part_memory);
    double *parts = reinterpret_cast<double*>(part_memory), sum = 0;
    const int sample = blockIdx.x, tid = threadIdx.x;
    for (int side = 0; side < count; side++) {
        const int each = sides[2 * side + 1];
        const float* from = rows + (size_t)sides[2 * side] * capacity + (size_t)sample * each;
        for (int r = tid; r < each; r += THREADS) sum += from[r];
    }
    parts[tid] = sum;
    __syncthreads();
    if (tid > 0) return;
    for (int i = 1; i < THREADS; i++) sum += parts[i];
    log_dets[sample] = static_cast<float>(sum + constant);
}
