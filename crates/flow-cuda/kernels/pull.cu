// The kernels of a pullback; side.cu stands before them.

// Budget: pull_of_32 128 registers
// Budget: pull_of_16 128 registers
// Budget: outer 64 registers
// Budget: add_chunks 48 registers
// Budget: add_conditions 48 registers

KERNEL(pull_of_32, const int* description, const float* weights, const float* conditions, const float* values, float* log_dets,
       int rows, float* cotangent, float* notes) {
    side<2, true>(description, weights, conditions, values, nullptr, log_dets, rows, cotangent, notes);
}

KERNEL(pull_of_16, const int* description, const float* weights, const float* conditions, const float* values, float* log_dets,
       int rows, float* cotangent, float* notes) {
    side<1, true>(description, weights, conditions, values, nullptr, log_dets, rows, cotangent, notes);
}

// Gradients of linear layers: Σ g xᵀ and Σ g over the rows of a batch, of what a pullback noted.
//
// The rows are cut into chunks of a fixed length, every chunk has sums of its own, and these are added up in order: no
// atomics, and the same sums however many blocks run at a time.

// A layer: where its g and its x begin among a row's notes, its sizes, which activation x is to be sent through (none
// below 0), where its sums begin, and the number of its first tile among all tiles of the side's layers.
enum { G, X, OUTPUTS, INPUTS, PHI, SUMS, TILE, LAYER };
constexpr int SIDE = 32, LDO = SIDE + 8;

// Adds the sums of all chunks, in order, to those of the batch so far.
__device__ __forceinline__ void add(const float* partial, int chunks, int size, float* sums, int block) {
    const int at = block * THREADS + threadIdx.x;
    if (at >= size) return;
    float sum = sums[at];
    for (int c = 0; c < chunks; c++) sum += partial[(size_t)c * size + at];
    sums[at] = sum;
}

KERNEL(add_chunks, const float* partial, int chunks, int size, float* sums) { add(partial, chunks, size, sums, blockIdx.x); }

// A block has 32 outputs × 32 inputs of a layer, and a chunk of the rows. The column behind the last input is all ones:
// its sums are the bias's. A warp has 16 × 8 of the tile. Blocks behind the last tile add up the chunks of the side
// that was pulled back before, which spares a launch.
KERNEL(outer, const int* layers, int count, const float* notes, int width, float* partial, int size, int rows, int chunk, int tiles,
       const float* earlier, int earlier_chunks, int earlier_size, float* earlier_sums) {
    SHARED(tile_memory);
    float *gs = tile_memory, *xs = gs + SIDE * LDO;
    if (static_cast<int>(blockIdx.x) >= tiles) {
        if (blockIdx.y == 0) add(earlier, earlier_chunks, earlier_size, earlier_sums, blockIdx.x - tiles);
        return;
    }
    const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, g = lane / 4, t = lane % 4;
    const int* layer = layers;
    for (int i = 1; i < count && layers[i * LAYER + TILE] <= static_cast<int>(blockIdx.x); i++) layer = layers + i * LAYER;
    const int outputs = layer[OUTPUTS], inputs = layer[INPUTS], across = inputs / SIDE + 1, tile = blockIdx.x - layer[TILE];
    const int o0 = tile / across * SIDE, i0 = tile % across * SIDE, o_own = warp / 4 * 16, i_own = warp % 4 * 8;
    const int first = blockIdx.y * chunk, end = min(first + chunk, rows);
    float d[4] = {};
    for (int row = first; row < end; row += SIDE) {
        for (int i = tid; i < SIDE * SIDE; i += THREADS) {
            const int r = i / SIDE, k = i % SIDE, o = o0 + k, in = i0 + k;
            const float* note = notes + (size_t)(row + r) * width;
            const bool there = row + r < end;
            gs[r * LDO + k] = there && o < outputs ? note[layer[G] + o] : 0.0f;
            float x = there && in == inputs ? 1.0f : 0.0f;
            if (there && in < inputs) x = layer[PHI] < 0 ? note[layer[X] + in] : activate(layer[PHI], note[layer[X] + in]);
            xs[r * LDO + k] = x;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < SIDE; k += 8) {
            unsigned a[4], a_small[4], b[2], b_small[2];
            const float *from = gs + (k + t) * LDO + o_own + g, *x = xs + (k + t) * LDO + i_own + g;
            split(from[0], a[0], a_small[0]);
            split(from[8], a[1], a_small[1]);
            split(from[4 * LDO], a[2], a_small[2]);
            split(from[4 * LDO + 8], a[3], a_small[3]);
            split(x[0], b[0], b_small[0]);
            split(x[4 * LDO], b[1], b_small[1]);
            multiply(d, a, a_small, b, b_small);
        }
        __syncthreads();
    }
    float* to = partial + (size_t)blockIdx.y * size + layer[SUMS];
    for (int i = 0; i < 4; i++) {
        const int o = o0 + o_own + g + (i / 2) * 8, in = i0 + i_own + 2 * t + i % 2;
        if (o < outputs && in <= inputs) to[o * (inputs + 1) + in] = d[i];
    }
}

// Adds the cotangents of the condition that the rows of a sample noted, in order, to the sample's; a block has a
// sample.
KERNEL(add_conditions, const float* notes, int width, int at, int rows, int condition, float* sums) {
    const float* first = notes + (size_t)blockIdx.x * rows * width + at;
    for (int c = threadIdx.x; c < condition; c += THREADS) {
        double sum = 0;
        for (int r = 0; r < rows; r++) sum += first[(size_t)r * width + c];
        sums[(size_t)blockIdx.x * condition + c] += static_cast<float>(sum);
    }
}
