// A side of a model on a tile of rows: gather, all its flows one after the other in shared memory, scatter, log-dets;
// and the pullback of all of it.
//
// One kernel runs every model: sizes and the list of flows are data (src/plan.rs writes them). Products run on tensor
// cores. A factor of f32 is split into two of TF32, and three products of these halves are f32's to 2^-21 or so; with
// the definition TF32 the product of the greater halves is taken for the whole.
#include "device.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;

// The head of a side's description, in ints; its flows follow, then the lists that it points to.
enum { EVENT, ROWS, FEATURES, FLOWS, HIDDEN_STRIDE, ROW_OFFSETS, COLUMN_OFFSETS, NOTES, HEAD };
// A flow. NOTE is where its notes begin among those of a row.
enum { KIND, WEIGHTS, KEPT, MOVED, KEPT_LIST, MOVED_LIST, HIDDEN, BLOCKS, ACTIVATION, INVERSE, BOUND, NOTE, FLOW };
enum { LINEAR, ADDITIVE, AFFINE };
enum { RELU, SILU, TANH, GELU };

// Widths are padded with zeros to whole tiles of 8, and four more put the lanes of a fragment into different banks.
__device__ __forceinline__ int padded(int n) { return (n + 7) & ~7; }
__device__ __forceinline__ int stride(int n) { return padded(n) + 4; }

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

// Works on the rows M · 16 · blockIdx.x and following. Without PULL: x → y, which go to `to`, the same place or another,
// and log-dets of the rows. With PULL the values stay as they are; what the pullback needs is noted, ∂L/∂y becomes ∂L/∂x
// in place, and what the parameters' gradients need is noted too; `log_dets` is ∂L/∂log-det of the samples.
template <int M, bool PULL>
__device__ __forceinline__ void side(const int* __restrict__ side, const float* __restrict__ weights, const float* values, float* to, float* log_dets,
                                     int rows, float* cotangent, float* notes) {
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
        const bool affine = flow[KIND] == AFFINE, inverse = flow[INVERSE];
        const int kept = flow[KEPT], moved = flow[MOVED], hidden = flow[HIDDEN], phi = flow[ACTIVATION], numbers = affine ? 2 * moved : moved;
        const int *kept_list = side + flow[KEPT_LIST], *moved_list = side + flow[MOVED_LIST];
        const Notes to(flow[NOTE], d, kept, hidden, flow[BLOCKS], numbers);
        for (int i = tid; i < R * padded(kept); i += THREADS) {
            const int r = i % R, k = i / R;
            const float z = k < kept ? x[r * ldx + kept_list[k]] : 0.0f;
            v[r * ldh + k] = z;
            if (PULL) note(r)[to.kept + k] = z;
        }
        __syncthreads();
        const Layer initial(at, hidden, kept);
        product<M, false>(v, ldh, initial.weight, hidden, kept, [&](int r, int n, float z) {
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
        const Layer last(at, numbers, hidden);
        product<M, false>(h, ldh, last.weight, numbers, hidden, [&](int r, int n, float z) {
            z += last.bias[n];
            v[r * ldh + n] = z;
            if (PULL) note(r)[to.numbers + n] = z;
        });
        __syncthreads();
        const float bound = __uint_as_float(flow[BOUND]);
        for (int i = tid; i < R * moved; i += THREADS) {
            const int r = i % R, k = i / R;
            float& value = x[r * ldx + moved_list[k]];
            const float s = affine ? bound * tanhf(v[r * ldh + k] / bound) : 0.0f, t = v[r * ldh + numbers - moved + k];
            value = inverse ? (value - t) * expf(-s) : value * expf(s) + t;
            u[r * ldh + k] = inverse ? -s : s;
        }
        __syncthreads();
        // The sum of a row in the order of its features.
        if (!PULL && affine && tid < R)
            for (int k = 0; k < moved; k++) log_det[tid] += u[tid * ldh + k];
    }
    if (!PULL) {
        scatter(to);
        if (tid < R && first + tid < rows) log_dets[first + tid] = log_det[tid];
        return;
    }
    // The way back: x holds the cotangent from here on.
    gather(cotangent);
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
        const bool affine = flow[KIND] == AFFINE;
        const int kept = flow[KEPT], moved = flow[MOVED], hidden = flow[HIDDEN], blocks = flow[BLOCKS], phi = flow[ACTIVATION];
        const int width = padded(hidden), numbers = affine ? 2 * moved : moved;
        const int *kept_list = side + flow[KEPT_LIST], *moved_list = side + flow[MOVED_LIST];
        const Notes from(flow[NOTE], d, kept, hidden, blocks, numbers);
        const Layer initial(at, hidden, kept);
        // A block's two layers are of one size.
        const float* block_at = initial.end;
        const int layer = width * width + width;
        const float bound = __uint_as_float(flow[BOUND]);
        for (int i = tid; i < R * padded(numbers); i += THREADS)
            if (i / R >= numbers) {
                v[i % R * ldh + i / R] = 0;
                note(i % R)[from.for_numbers + i / R] = 0;
            }
        for (int i = tid; i < R * moved; i += THREADS) {
            const int r = i % R, k = i / R;
            float* notes_of_row = note(r);
            float& g = x[r * ldx + moved_list[k]];
            const float for_t = g;
            if (affine) {
                const float tanh = tanhf(notes_of_row[from.numbers + k] / bound), scale = expf(bound * tanh);
                const float for_log_det = first + r < rows ? log_dets[(first + r) / each] : 0.0f;
                const float for_s = g * notes_of_row[flow[NOTE] + moved_list[k]] * scale + for_log_det, for_r = for_s * (1.0f - tanh) * (1.0f + tanh);
                v[r * ldh + k] = for_r;
                notes_of_row[from.for_numbers + k] = for_r;
                g *= scale;
            }
            v[r * ldh + numbers - moved + k] = for_t;
            notes_of_row[from.for_numbers + numbers - moved + k] = for_t;
        }
        __syncthreads();
        product<M, true>(v, ldh, block_at + (size_t)2 * blocks * layer, numbers, hidden, [&](int r, int n, float z) {
            h[r * ldh + n] = z;
            note(r)[from.for_h + blocks * width + n] = z;
        });
        __syncthreads();
        for (int block = blocks - 1; block >= 0; block--) {
            const float *inner = block_at + (size_t)2 * block * layer, *outer = inner + layer;
            const int h_at = from.hidden + 2 * block * width, z_at = h_at + width;
            product<M, true>(h, ldh, outer, hidden, hidden, [&](int r, int n, float z) {
                z *= slope(phi, note(r)[z_at + n]);
                u[r * ldh + n] = z;
                note(r)[from.for_z + block * width + n] = z;
            });
            __syncthreads();
            product<M, true>(u, ldh, inner, hidden, hidden, [&](int r, int n, float z) {
                z = h[r * ldh + n] + z * slope(phi, note(r)[h_at + n]);
                h[r * ldh + n] = z;
                note(r)[from.for_h + block * width + n] = z;
            });
            __syncthreads();
        }
        product<M, true>(h, ldh, initial.weight, hidden, kept, [&](int r, int n, float z) {
            if (n < kept) x[r * ldx + kept_list[n]] += z;
        });
        __syncthreads();
    }
    scatter(cotangent);
}

#define KERNEL(name, ...) extern "C" __global__ void __launch_bounds__(THREADS, 2) name(__VA_ARGS__)
