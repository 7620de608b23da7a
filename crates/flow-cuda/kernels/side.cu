// A side of a model on a tile of rows: gather, all its flows one after the other in shared memory, scatter, log-dets.
//
// One kernel runs every model: sizes and the list of flows are data (src/plan.rs writes them). Products run on tensor
// cores. A factor of f32 is split into two of TF32, and three products of these halves are f32's to 2^-21 or so; plain
// TF32 is good for none of what is computed here.
#include "device.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;

// The head of a side's description, in ints; its flows follow, then the lists that it points to.
enum { EVENT, ROWS, FEATURES, FLOWS, HIDDEN_STRIDE, ROW_OFFSETS, COLUMN_OFFSETS, HEAD };
// A flow.
enum { KIND, WEIGHTS, KEPT, MOVED, KEPT_LIST, MOVED_LIST, HIDDEN, BLOCKS, ACTIVATION, INVERSE, BOUND, FLOW };
enum { LINEAR, ADDITIVE, AFFINE };
enum { RELU, SILU, TANH, GELU };

// Widths are padded with zeros to whole tiles of 8, and four more put the lanes of a fragment into different banks.
__device__ __forceinline__ int padded(int n) { return (n + 7) & ~7; }
__device__ __forceinline__ int stride(int n) { return padded(n) + 4; }

__device__ __forceinline__ void split(float x, unsigned& big, unsigned& small) {
    big = tf32(x);
    small = tf32(x - __uint_as_float(big));
}

__device__ __forceinline__ float logistic(float x) {
    const float e = expf(-fabsf(x));
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}

// NaN goes through, so that it is noticed.
__device__ __forceinline__ float activate(int kind, float x) {
    switch (kind) {
    case RELU: return x < 0 ? 0.0f : x;
    case SILU: return x * logistic(x);
    case TANH: return tanhf(x);
    default: return x * logistic(1.595769121605731f * x * (1.0f + 0.044715f * x * x));
    }
}

// Y = X Wᵀ for M · 16 rows X in shared memory: epilogue(row, output, value) takes the numbers. W lies in tiles of 8 × 8,
// the inputs of 8 outputs after each other; within a tile a lane's two numbers are neighbours. A warp has every
// WARPS-th column of tiles.
template <int M, class F>
__device__ __forceinline__ void times(const float* x, int ldx, const float* __restrict__ w, int outputs, int inputs, F epilogue) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, tiles = padded(inputs) / 8;
    for (int n = warp; n < padded(outputs) / 8; n += WARPS) {
        float d[M][4] = {};
        const float* tile = w + (size_t)n * tiles * 64 + 2 * lane;
#pragma unroll 2
        for (int k = 0; k < tiles; k++) {
            unsigned b[2], b_small[2];
            split(tile[k * 64], b[0], b_small[0]);
            split(tile[k * 64 + 1], b[1], b_small[1]);
#pragma unroll
            for (int m = 0; m < M; m++) {
                unsigned a[4], a_small[4];
                const float* from = x + (m * 16 + g) * ldx + k * 8 + t;
                split(from[0], a[0], a_small[0]);
                split(from[8 * ldx], a[1], a_small[1]);
                split(from[4], a[2], a_small[2]);
                split(from[8 * ldx + 4], a[3], a_small[3]);
                mma(d[m], a_small, b);
                mma(d[m], a, b_small);
                mma(d[m], a, b);
            }
        }
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) epilogue(m * 16 + g + (i / 2) * 8, n * 8 + 2 * t + i % 2, d[m][i]);
    }
}

// A linear layer's weights, and its bias behind them.
struct Layer {
    const float *weight, *bias, *end;
    __device__ __forceinline__ Layer(const float* at, int outputs, int inputs)
        : weight(at), bias(at + (size_t)padded(outputs) * padded(inputs)), end(bias + padded(outputs)) {}
};

// Works on the rows M · 16 · blockIdx.x and following, in place.
template <int M>
__device__ __forceinline__ void side(const int* __restrict__ side, const float* __restrict__ weights, float* __restrict__ values,
                                     float* __restrict__ log_dets, int rows) {
    constexpr int R = M * 16;
    SHARED(memory);
    const int each = side[ROWS], d = side[FEATURES], ldx = stride(d), ldh = side[HIDDEN_STRIDE], tid = threadIdx.x, first = blockIdx.x * R;
    const int *row_offsets = side + side[ROW_OFFSETS], *column_offsets = side + side[COLUMN_OFFSETS];
    float *x = memory, *y = x + R * ldx, *u = y + R * ldx, *v = u + R * ldh, *h = v + R * ldh, *log_det = h + R * ldh;
    // A tile's last rows may be none of the batch: they are zeros.
    auto place = [&](int r, int k) {
        const int row = first + r;
        return (size_t)(row / each) * side[EVENT] + row_offsets[row % each] + column_offsets[k];
    };
    for (int i = tid; i < R * padded(d); i += THREADS) {
        const int r = i % R, k = i / R;
        x[r * ldx + k] = k < d && first + r < rows ? values[place(r, k)] : 0.0f;
    }
    if (tid < R) log_det[tid] = 0;
    __syncthreads();
    for (int f = 0; f < side[FLOWS]; f++) {
        const int* flow = side + HEAD + f * FLOW;
        const float* at = weights + flow[WEIGHTS];
        if (flow[KIND] == LINEAR) {
            const Layer map(at, d, d);
            times<M>(x, ldx, map.weight, d, d, [&](int r, int n, float z) { y[r * ldx + n] = z + map.bias[n]; });
            __syncthreads();
            float* other = x;
            x = y;
            y = other;
            continue;
        }
        const int kept = flow[KEPT], moved = flow[MOVED], hidden = flow[HIDDEN], phi = flow[ACTIVATION];
        const int *kept_list = side + flow[KEPT_LIST], *moved_list = side + flow[MOVED_LIST];
        for (int i = tid; i < R * padded(kept); i += THREADS) {
            const int r = i % R, k = i / R;
            v[r * ldh + k] = k < kept ? x[r * ldx + kept_list[k]] : 0.0f;
        }
        __syncthreads();
        const Layer initial(at, hidden, kept);
        times<M>(v, ldh, initial.weight, hidden, kept, [&](int r, int n, float z) {
            z += initial.bias[n];
            h[r * ldh + n] = z;
            u[r * ldh + n] = activate(phi, z);
        });
        at = initial.end;
        __syncthreads();
        for (int block = 0; block < flow[BLOCKS]; block++) {
            const Layer inner(at, hidden, hidden), outer(inner.end, hidden, hidden);
            times<M>(u, ldh, inner.weight, hidden, hidden, [&](int r, int n, float z) { v[r * ldh + n] = activate(phi, z + inner.bias[n]); });
            __syncthreads();
            times<M>(v, ldh, outer.weight, hidden, hidden, [&](int r, int n, float z) {
                z += outer.bias[n] + h[r * ldh + n];
                h[r * ldh + n] = z;
                u[r * ldh + n] = activate(phi, z);
            });
            at = outer.end;
            __syncthreads();
        }
        const bool affine = flow[KIND] == AFFINE, inverse = flow[INVERSE];
        const int numbers = affine ? 2 * moved : moved;
        const Layer last(at, numbers, hidden);
        times<M>(h, ldh, last.weight, numbers, hidden, [&](int r, int n, float z) { v[r * ldh + n] = z + last.bias[n]; });
        __syncthreads();
        const float bound = __uint_as_float(flow[BOUND]);
        for (int i = tid; i < R * moved; i += THREADS) {
            const int r = i % R, k = i / R;
            float& to = x[r * ldx + moved_list[k]];
            const float s = affine ? bound * tanhf(v[r * ldh + k] / bound) : 0.0f, t = v[r * ldh + numbers - moved + k];
            to = inverse ? (to - t) * expf(-s) : to * expf(s) + t;
            u[r * ldh + k] = inverse ? -s : s;
        }
        __syncthreads();
        // The sum of a row in the order of its features.
        if (affine && tid < R)
            for (int k = 0; k < moved; k++) log_det[tid] += u[tid * ldh + k];
    }
    for (int i = tid; i < R * d; i += THREADS) {
        const int r = i % R, k = i / R;
        if (first + r < rows) values[place(r, k)] = x[r * ldx + k];
    }
    if (tid < R && first + tid < rows) log_dets[first + tid] = log_det[tid];
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) side_of_32(const int* description, const float* weights, float* values, float* log_dets, int rows) {
    side<2>(description, weights, values, log_dets, rows);
}

// For rows and networks so wide that 32 rows do not fit a block's shared memory.
extern "C" __global__ void __launch_bounds__(THREADS, 2) side_of_16(const int* description, const float* weights, float* values, float* log_dets, int rows) {
    side<1>(description, weights, values, log_dets, rows);
}

// The log-dets of whole samples, a block each: `sides` has for every side where its rows' log-dets begin, in samples of
// one row, and how many rows a sample has there. Every thread has its part of the rows, and the first adds up the parts.
extern "C" __global__ void __launch_bounds__(THREADS) sum_log_dets(const int* sides, int count, const float* rows, int capacity, double constant, float* log_dets) {
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
