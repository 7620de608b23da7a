// A side of a model on a tile of rows: gather, all its flows one after the other in shared memory, scatter, log-dets;
// and the pullback of all of it.
//
// One kernel runs every model: sizes and the list of flows are data (src/plan.rs writes them). Products run on tensor
// cores. A factor of f32 is split into two of TF32, and three products of these halves are f32's to 2^-21 or so; with
// the definition TF32 the product of the greater halves is taken for the whole.
#include "device.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;

// The head of a side's description, in ints; its flows follow, then the lists that it points to. CONDITION is the width
// of the condition that flows see, and FOR_CONDITION where its cotangent lies among the notes of a row.
enum { EVENT, ROWS, FEATURES, FLOWS, HIDDEN_STRIDE, ROW_OFFSETS, COLUMN_OFFSETS, NOTES, CONDITION, FOR_CONDITION, HEAD };
// A flow. Its network sees SEEN numbers: the KEPT features, and behind them the condition if there are more. SETTINGS
// is how many numbers its transformer has besides those of features, which lie before its weights; a feature has EACH
// numbers, number k of feature j at FEATURE_STEP · j + NUMBER_STEP · k, and PART features are moved at a time. In more
// than one of PASSES every pass moves one feature alone, whose numbers those before it give. NOTE is where its notes
// begin among those of a row. Without a network there are no inputs and no hidden values, and the numbers are the last
// bias.
enum {
    KIND, WEIGHTS, SEEN, KEPT, MOVED, KEPT_LIST, MOVED_LIST, HIDDEN, BLOCKS, ACTIVATION, INVERSE, PASSES, TRANSFORMER, SETTINGS,
    EACH, FEATURE_STEP, NUMBER_STEP, PART, NOTE, FLOW
};
enum { LINEAR, MOVES };
enum { RELU, SILU, TANH, GELU };

// Widths are padded with zeros to whole tiles of 8, and four more put the lanes of a fragment into different banks.
__device__ __forceinline__ int padded(int n) { return (n + 7) & ~7; }
__device__ __forceinline__ int stride(int n) { return padded(n) + 4; }
// Numbers of features, and of every feature the logarithm of its slope, which takes the place of its first number.
__device__ __forceinline__ int number_stride(int numbers, int features) { return stride(numbers > features ? numbers : features); }

__device__ __forceinline__ void split(float x, unsigned& big, unsigned& small) {
    big = tf32(x);
    small = tf32(x - __uint_as_float(big));
}

// d += a b for factors of two halves each.
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&a_small)[4], const unsigned (&b)[2], const unsigned (&b_small)[2]) {
#ifndef TF32
    mma(d, a_small, b);
    mma(d, a, b_small);
#endif
    mma(d, a, b);
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

__device__ __forceinline__ float slope(int kind, float x) {
    switch (kind) {
    case RELU: return x > 0 ? 1.0f : 0.0f;
    case SILU: {
        const float gate = logistic(x);
        return gate + x * gate * logistic(-x);
    }
    case TANH: {
        const float y = tanhf(x);
        return (1.0f - y) * (1.0f + y);
    }
    default: {
        // Far out the slope is 0 or 1, and the cube must not overflow.
        const float near = fminf(fmaxf(x, -1e4f), 1e4f), square = near * near, c = 1.595769121605731f;
        const float a = c * near * (1.0f + 0.044715f * square), gate = logistic(a);
        return gate + near * c * (1.0f + 3.0f * 0.044715f * square) * gate * logistic(-a);
    }
    }
}

// Y = X Wᵀ, or X W, for M · 16 rows X in shared memory: epilogue(row, output, value) takes the numbers. W of
// `outputs` × `inputs` lies in tiles of 8 × 8, the inputs of 8 outputs after each other; within a tile the two numbers
// of a lane are neighbours where Y = X Wᵀ, and in either case a warp reads a tile whole. A warp has every WARPS-th
// column of tiles of Y.
template <int M, bool TRANSPOSED, class F>
__device__ __forceinline__ void product(const float* x, int ldx, const float* __restrict__ w, int outputs, int inputs, F epilogue) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int across = padded(inputs) / 8, down = padded(outputs) / 8, columns = TRANSPOSED ? across : down, sum = TRANSPOSED ? down : across;
    const float* own = w + (TRANSPOSED ? 2 * (t * 4 + g % 4) + g / 4 : 2 * lane);
    for (int n = warp; n < columns; n += WARPS) {
        float d[M][4] = {};
        const float* tile = own + (size_t)64 * (TRANSPOSED ? n : n * across);
#pragma unroll 2
        for (int k = 0; k < sum; k++) {
            unsigned b[2], b_small[2];
            split(tile[0], b[0], b_small[0]);
            split(tile[TRANSPOSED ? 32 : 1], b[1], b_small[1]);
            tile += TRANSPOSED ? 64 * across : 64;
#pragma unroll
            for (int m = 0; m < M; m++) {
                unsigned a[4], a_small[4];
                const float* from = x + (m * 16 + g) * ldx + k * 8 + t;
                split(from[0], a[0], a_small[0]);
                split(from[8 * ldx], a[1], a_small[1]);
                split(from[4], a[2], a_small[2]);
                split(from[8 * ldx + 4], a[3], a_small[3]);
                multiply(d[m], a, a_small, b, b_small);
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

// Where a row's notes of a coupling lie: x and the kept features, then h and for every block z and the next h, then the
// network's numbers. Cotangents follow: of the numbers, of every h, of every z.
struct Notes {
    int kept, hidden, numbers, for_numbers, for_h, for_z;
    __device__ __forceinline__ Notes(int note, int features, int kept_, int width, int blocks, int count) {
        kept = note + padded(features);
        hidden = kept + padded(kept_);
        numbers = hidden + (1 + 2 * blocks) * padded(width);
        for_numbers = numbers + padded(count);
        for_h = for_numbers + padded(count);
        for_z = for_h + (1 + blocks) * padded(width);
    }
};

// Works on the rows M · 16 · blockIdx.x and following. Without PULL: x → y, which go to `to`, the same place or
// another, and log-dets of the rows. With PULL the values stay as they are; what the pullback needs is noted, ∂L/∂y
// becomes ∂L/∂x in place, and what the parameters' gradients need is noted too; `log_dets` is ∂L/∂log-det of the
// samples. `conditions` has a vector a sample.
template <int M, bool PULL>
__device__ __forceinline__ void side(const int* __restrict__ side, const float* __restrict__ weights, const float* __restrict__ conditions,
                                     const float* values, float* to, float* log_dets, int rows, float* cotangent, float* notes) {
    constexpr int R = M * 16;
    SHARED(memory);
    const int each = side[ROWS], d = side[FEATURES], ldx = stride(d), ldh = side[HIDDEN_STRIDE], tid = threadIdx.x, first = blockIdx.x * R;
    const int *row_offsets = side + side[ROW_OFFSETS], *column_offsets = side + side[COLUMN_OFFSETS];
    float *x = memory, *y = x + R * ldx, *u = y + R * ldx, *v = u + R * ldh, *h = v + R * ldh, *log_det = h + R * ldh;
    auto place = [&](int r, int k) {
        const int row = first + r;
        return (size_t)(row / each) * side[EVENT] + row_offsets[row % each] + column_offsets[k];
    };
    auto note = [&](int r) { return notes + (size_t)(first + r) * side[NOTES]; };
    // A tile's last rows may be none of the batch: they are zeros.
    auto gather = [&](const float* from) {
        for (int i = tid; i < R * padded(d); i += THREADS) {
            const int r = i % R, k = i / R;
            x[r * ldx + k] = k < d && first + r < rows ? from[place(r, k)] : 0.0f;
        }
    };
    auto scatter = [&](float* to) {
        for (int i = tid; i < R * d; i += THREADS) {
            const int r = i % R, k = i / R;
            if (first + r < rows) to[place(r, k)] = x[r * ldx + k];
        }
    };
    gather(values);
    if (!PULL && tid < R) log_det[tid] = 0;
    __syncthreads();
    for (int f = 0; f < side[FLOWS]; f++) {
        const int* flow = side + HEAD + f * FLOW;
        const float* at = weights + flow[WEIGHTS];
        if (PULL)
            for (int i = tid; i < R * padded(d); i += THREADS) note(i % R)[flow[NOTE] + i / R] = x[i % R * ldx + i / R];
        if (flow[KIND] == LINEAR) {
            const Layer map(at, d, d);
            product<M, false>(x, ldx, map.weight, d, d, [&](int r, int n, float z) { y[r * ldx + n] = z + map.bias[n]; });
            __syncthreads();
            float* other = x;
            x = y;
            y = other;
            continue;
        }
        // What is pulled back went forward.
        const int passes = PULL ? 1 : flow[PASSES];
        const bool inverse = !PULL && flow[INVERSE], whole = passes == 1;
        const int inputs = flow[SEEN], hidden = flow[HIDDEN], phi = flow[ACTIVATION];
        const Notes to(flow[NOTE], d, inputs, hidden, flow[BLOCKS], flow[EACH] * flow[MOVED]);
        for (int pass = 0; pass < passes; pass++) {
            const int kept = flow[KEPT], *kept_list = side + flow[KEPT_LIST];
            for (int i = tid; i < R * padded(inputs); i += THREADS) {
                const int r = i % R, k = i / R;
                float z = k < kept ? x[r * ldx + kept_list[k]] : 0.0f;
                if (k >= kept && k < inputs && first + r < rows) z = conditions[(size_t)((first + r) / each) * side[CONDITION] + k - kept];
                v[r * ldh + k] = z;
                if (PULL) note(r)[to.kept + k] = z;
            }
            __syncthreads();
            const Layer initial(weights + flow[WEIGHTS] + padded(flow[SETTINGS]), hidden, inputs);
            product<M, false>(v, ldh, initial.weight, hidden, inputs, [&](int r, int n, float z) {
                z += initial.bias[n];
                h[r * ldh + n] = z;
                u[r * ldh + n] = activate(phi, z);
                if (PULL) note(r)[to.hidden + n] = z;
            });
            at = initial.end;
            __syncthreads();
            for (int block = 0; block < flow[BLOCKS]; block++) {
                const Layer inner(at, hidden, hidden), outer(inner.end, hidden, hidden);
                const int z_at = to.hidden + (1 + 2 * block) * padded(hidden), h_at = z_at + padded(hidden);
                product<M, false>(u, ldh, inner.weight, hidden, hidden, [&](int r, int n, float z) {
                    z += inner.bias[n];
                    v[r * ldh + n] = activate(phi, z);
                    if (PULL) note(r)[z_at + n] = z;
                });
                __syncthreads();
                product<M, false>(v, ldh, outer.weight, hidden, hidden, [&](int r, int n, float z) {
                    z += outer.bias[n] + h[r * ldh + n];
                    h[r * ldh + n] = z;
                    u[r * ldh + n] = activate(phi, z);
                    if (PULL) note(r)[h_at + n] = z;
                });
                at = outer.end;
                __syncthreads();
            }
            const Layer last(at, flow[EACH] * flow[MOVED], hidden);
            const int end = whole ? flow[MOVED] : pass + 1;
            for (int from = whole ? 0 : pass / flow[PART] * flow[PART]; from < end; from += flow[PART]) {
                // From here on u and v are one buffer, of the numbers of a part of the features.
                const int features = min(flow[PART], flow[MOVED] - from), numbers = flow[EACH] * features, skipped = flow[EACH] * from;
                const int ldn = number_stride(numbers, features), *list = side + flow[MOVED_LIST] + from;
                product<M, false>(h, ldh, last.weight + (size_t)skipped * padded(hidden), numbers, hidden, [&](int r, int n, float z) {
                    z += last.bias[skipped + n];
                    u[r * ldn + n] = z;
                    if (PULL) note(r)[to.numbers + skipped + n] = z;
                });
                __syncthreads();
                for (int i = tid; i < R * features; i += THREADS) {
                    const int r = i % R, k = i / R;
                    float *own = u + r * ldn + k * flow[FEATURE_STEP], log_slope = 0;
                    if (whole || from + k == pass)
                        log_slope = move(flow[TRANSFORMER], weights + flow[WEIGHTS], own, flow[NUMBER_STEP], inverse, x[r * ldx + list[k]]);
                    if (!PULL) own[0] = log_slope;
                }
                __syncthreads();
                if (!PULL) {
                    // The sum of a row in the order of its features.
                    if (tid < R)
                        for (int k = 0; k < features; k++) log_det[tid] += u[tid * ldn + k * flow[FEATURE_STEP]];
                    __syncthreads();
                }
            }
        }
    }
    if (!PULL) {
        scatter(to);
        if (tid < R && first + tid < rows) log_dets[first + tid] = log_det[tid];
        return;
    }
    // The way back: x holds the cotangent from here on.
    gather(cotangent);
    for (int i = tid; i < R * side[CONDITION]; i += THREADS) note(i % R)[side[FOR_CONDITION] + i / R] = 0;
    __syncthreads();
    for (int f = side[FLOWS] - 1; f >= 0; f--) {
        const int* flow = side + HEAD + f * FLOW;
        const float* at = weights + flow[WEIGHTS];
        if (flow[KIND] == LINEAR) {
            const int for_y = flow[NOTE] + padded(d);
            for (int i = tid; i < R * padded(d); i += THREADS) note(i % R)[for_y + i / R] = x[i % R * ldx + i / R];
            product<M, true>(x, ldx, at, d, d, [&](int r, int n, float z) { y[r * ldx + n] = z; });
            __syncthreads();
            float* other = x;
            x = y;
            y = other;
            continue;
        }
        const int inputs = flow[SEEN], hidden = flow[HIDDEN], blocks = flow[BLOCKS], phi = flow[ACTIVATION], width = padded(hidden);
        const Notes from(flow[NOTE], d, inputs, hidden, blocks, flow[EACH] * flow[MOVED]);
        // From the last layer back to the first; a block's two layers are of one size.
        const int layer = width * width + width;
        at = Layer(at + padded(flow[SETTINGS]), hidden, inputs).end + (size_t)2 * blocks * layer;
        for (int before = 0; before < flow[MOVED]; before += flow[PART]) {
            const int features = min(flow[PART], flow[MOVED] - before), numbers = flow[EACH] * features, skipped = flow[EACH] * before;
            const int ldn = number_stride(numbers, features), step = flow[NUMBER_STEP], *list = side + flow[MOVED_LIST] + before;
            for (int i = tid; i < R * (padded(numbers) - numbers); i += THREADS) u[i % R * ldn + numbers + i / R] = 0;
            for (int i = tid; i < R * features; i += THREADS) {
                // The number of a feature's first number in a row's notes, and that of its cotangent.
                auto noted = [&](int i, int from) { return note(i % R) + from + skipped + i / R * flow[FEATURE_STEP]; };
                float *own = u + i % R * ldn + i / R * flow[FEATURE_STEP], *numbers_of_i = noted(i, from.numbers);
#pragma unroll 1
                for (int n = 0; n < flow[EACH] * step; n += step) own[n] = numbers_of_i[n];
                const float for_log_det = first + i % R < rows ? log_dets[(first + i % R) / each] : 0.0f;
                const float value = note(i % R)[flow[NOTE] + list[i / R]], g = x[i % R * ldx + list[i / R]];
                const float for_x = pull(flow[TRANSFORMER], weights + flow[WEIGHTS], own, step, value, g, for_log_det);
                const int same = found_again(i);
                own = u + same % R * ldn + same / R * flow[FEATURE_STEP];
                x[same % R * ldx + list[same / R]] = for_x;
                numbers_of_i = noted(same, from.for_numbers);
#pragma unroll 1
                for (int n = 0; n < flow[EACH] * step; n += step) numbers_of_i[n] = own[n];
            }
            __syncthreads();
            product<M, true>(u, ldn, at + (size_t)skipped * width, numbers, hidden, [&](int r, int n, float z) {
                if (before > 0) z += h[r * ldh + n];
                h[r * ldh + n] = z;
                note(r)[from.for_h + blocks * width + n] = z;
            });
            __syncthreads();
        }
        for (int block = blocks - 1; block >= 0; block--) {
            const int h_at = from.hidden + 2 * block * width, z_at = h_at + width;
            at -= layer;
            product<M, true>(h, ldh, at, hidden, hidden, [&](int r, int n, float z) {
                z *= slope(phi, note(r)[z_at + n]);
                u[r * ldh + n] = z;
                note(r)[from.for_z + block * width + n] = z;
            });
            __syncthreads();
            at -= layer;
            product<M, true>(u, ldh, at, hidden, hidden, [&](int r, int n, float z) {
                z = h[r * ldh + n] + z * slope(phi, note(r)[h_at + n]);
                h[r * ldh + n] = z;
                note(r)[from.for_h + block * width + n] = z;
            });
            __syncthreads();
        }
        const int kept = flow[KEPT], *kept_list = side + flow[KEPT_LIST];
        product<M, true>(h, ldh, weights + flow[WEIGHTS] + padded(flow[SETTINGS]), hidden, inputs, [&](int r, int n, float z) {
            if (n < kept)
                x[r * ldx + kept_list[n]] += z;
            else if (n < inputs)
                note(r)[side[FOR_CONDITION] + n - kept] += z;
        });
        __syncthreads();
    }
    scatter(cotangent);
}

#define KERNEL(name, ...) extern "C" __global__ void __launch_bounds__(THREADS, 2) name(__VA_ARGS__)
