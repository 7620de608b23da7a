// The kernels of a training step besides those of its sides: from levels to numbers, from parameters to weights, the
// likelihood, from sums to gradients, the optimiser. Sums have a fixed order.
#include "device.cuh"

constexpr int THREADS = 256;
#define KERNEL(name, ...) extern "C" __global__ void __launch_bounds__(THREADS, 2) name(__VA_ARGS__)

// Budget: dequantise 80 registers
// Budget: prepare 96 registers
// Budget: likelihood 64 registers
// Budget: pull_maps 96 registers
// Budget: finish 96 registers
// Budget: squares 48 registers
// Budget: conclude 48 registers
// Budget: adam 48 registers

// What parameters make, an item a block and a chunk of it, in ints. LAYER: W of outputs × inputs and b, which lie one
// after the other among the parameters. MAP: a product of elementary maps of R^DIM, whose list follows at OPS.
enum { KIND, PARAMETERS, OUTPUTS, INPUTS, WEIGHTS, SUMS, OPS, OP_COUNT, SCRATCH, ROWS, NUMBER, ITEM };
enum { LAYER, MAP };
// An elementary map: where its parameters begin, those behind them, and what it has besides.
enum { OP, FIRST, SECOND, LIST, OP_INTS };
enum { SCALE, PERMUTE, UPPER, LOWER };
// Columns of [W | b] that a block has, and numbers of a layer.
constexpr int COLUMNS = 32, NUMBERS = 4096;

__device__ __forceinline__ int padded(int n) { return (n + 7) & ~7; }
__device__ __forceinline__ bool is_finite(double x) { return x - x == 0; }
// Where row i of a packed strict triangle of d × d begins.
__device__ __forceinline__ int lower_row(int i) { return i * (i - 1) / 2; }
__device__ __forceinline__ int upper_row(int i, int d) { return i * (2 * d - i - 1) / 2; }

__device__ __forceinline__ void quarter_round(unsigned& a, unsigned& b, unsigned& c, unsigned& d) {
    a += b, d ^= a, d = d << 16 | d >> 16;
    c += d, b ^= c, b = b << 12 | b >> 20;
    a += b, d ^= a, d = d << 8 | d >> 24;
    c += d, b ^= c, b = b << 7 | b >> 25;
}

// Block `number` of the stream of ChaCha with 8 rounds (Bernstein 2008) whose key are four numbers of 64 bits.
__device__ __forceinline__ void chacha8(const unsigned long long (&key)[4], unsigned number, unsigned (&to)[16]) {
    const unsigned start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u,
                                (unsigned)key[0], (unsigned)(key[0] >> 32), (unsigned)key[1], (unsigned)(key[1] >> 32),
                                (unsigned)key[2], (unsigned)(key[2] >> 32), (unsigned)key[3], (unsigned)(key[3] >> 32),
                                number, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < 16; i++) to[i] = start[i];
#pragma unroll
    for (int round = 0; round < 4; round++) {
        quarter_round(to[0], to[4], to[8], to[12]);
        quarter_round(to[1], to[5], to[9], to[13]);
        quarter_round(to[2], to[6], to[10], to[14]);
        quarter_round(to[3], to[7], to[11], to[15]);
        quarter_round(to[0], to[5], to[10], to[15]);
        quarter_round(to[1], to[6], to[11], to[12]);
        quarter_round(to[2], to[7], to[8], to[13]);
        quarter_round(to[3], to[4], to[9], to[14]);
    }
#pragma unroll
    for (int i = 0; i < 16; i++) to[i] += start[i];
}

// Levels x of samples, each of them behind all the items' numbers (epoch, item), become (x + u)/L − ½ with the noise of
// (seed, purpose, epoch, item): sixteen bits a number, the lower half of a word first, behind those that say whether
// the sample is mirrored, if it may be. As in flow-train's dequantise.rs, to the bit. A thread has a block of the
// stream.
KERNEL(dequantise, const unsigned long long* items, const unsigned char* levels, unsigned long long seed, unsigned long long purpose, int event,
       int row, double count, int dropped, int flip, float* values) {
    const int number = blockIdx.y * THREADS + threadIdx.x, sample = blockIdx.x;
    if (number * 32 >= event + flip) return;
    const unsigned long long key[4] = {seed, purpose, items[2 * sample], items[2 * sample + 1]};
    unsigned words[16];
    bool mirrored = false;
    if (flip) {
        chacha8(key, 0, words);
        mirrored = words[0] & 1;
    }
    chacha8(key, number, words);
    const unsigned char* from = levels + (size_t)sample * event;
    float* to = values + (size_t)sample * event;
#pragma unroll
    for (int k = 0; k < 32; k++) {
        const int at = number * 32 + k - flip;
        if (at < 0 || at >= event) continue;
        const unsigned bits = k % 2 ? words[k / 2] >> 16 : words[k / 2] & 0xffffu;
        const int x = from[mirrored ? at / row * row + row - 1 - at % row : at] >> dropped;
        to[at] = static_cast<float>((x + (bits + 0.5) / 65536.0) / count - 0.5);
    }
}

// W and b in the layout that the kernels of sides read (plan.rs, `linear`), as far as they lie in a chunk.
template <class W, class B> __device__ __forceinline__ void pack(float* to, int outputs, int inputs, int first, int end, W weight, B bias) {
    const int across = padded(inputs) / 8, size = padded(outputs) * padded(inputs);
    for (int i = first + threadIdx.x; i < min(end, size + padded(outputs)); i += THREADS) {
        if (i >= size) {
            to[i] = i - size < outputs ? bias(i - size) : 0.0f;
            continue;
        }
        const int tile = i / 64, lane = i % 64 / 2, row = tile / across * 8 + lane / 4, column = tile % across * 8 + lane % 4 + 4 * (i % 2);
        to[i] = row < outputs && column < inputs ? weight(row, column) : 0.0f;
    }
}

// Weights of all parameters, the log-dets of affine maps, and zeros for all sums. Of a map every prefix [W | b] of its
// elementary maps is kept, d × (d + 1) numbers each: the way back needs them. A block has some of their columns.
KERNEL(prepare, const int* items, const int* lists, const float* constants, const float* parameters, float* weights, float* scratch, double* log_dets,
       float* sums) {
    const int *item = items + blockIdx.x * ITEM, tid = threadIdx.x, d = item[OUTPUTS], inputs = item[INPUTS];
    for (int i = blockIdx.y * THREADS + tid; i < d * (inputs + 1); i += gridDim.y * THREADS) sums[item[SUMS] + i] = 0;
    float* to = weights + item[WEIGHTS];
    const float* own = parameters + item[PARAMETERS];
    if (item[KIND] == LAYER) {
        const float* bias = own + (size_t)d * inputs;
        const int first = blockIdx.y * NUMBERS;
        pack(to, d, inputs, first, first + NUMBERS, [&](int o, int i) { return own[(size_t)o * inputs + i]; }, [&](int o) { return bias[o]; });
        return;
    }
    const int width = d + 1, first = blockIdx.y * COLUMNS, columns = min(COLUMNS, width - first);
    if (columns <= 0) return;
    float* prefix = scratch + item[SCRATCH] + first;
    for (int e = tid; e < d * columns; e += THREADS) prefix[(size_t)(e / columns) * width + e % columns] = e / columns == first + e % columns ? 1.0f : 0.0f;
    double log_det = 0;
    for (int k = 0; k < item[OP_COUNT]; k++) {
        __syncthreads();
        const int* op = lists + item[OPS] + k * OP_INTS;
        const float *one = parameters + op[FIRST], *two = parameters + op[SECOND], *middle = constants + op[LIST];
        float* next = prefix + (size_t)d * width;
        for (int e = tid; e < d * columns; e += THREADS) {
            const int i = e / columns, c = e % columns;
            const bool is_offset = first + c == d;
            const float* column = prefix + c;
            float y = column[(size_t)i * width];
            switch (op[OP]) {
            case SCALE: y = expf(one[i]) * (is_offset ? y - middle[i] : y) + (is_offset ? two[i] : 0.0f); break;
            case PERMUTE: y = column[(size_t)lists[op[LIST] + i] * width]; break;
            case UPPER:
                y *= expf(two[i]);
                for (int j = i + 1; j < d; j++) y += one[upper_row(i, d) + j - i - 1] * column[(size_t)j * width];
                break;
            default:
                for (int j = 0; j < i; j++) y += one[lower_row(i) + j] * column[(size_t)j * width];
                if (is_offset) y += two[i];
            }
            next[(size_t)i * width + c] = y;
        }
        prefix = next;
        if (tid == 0 && first == 0 && op[OP] != PERMUTE && op[OP] != LOWER)
            for (int i = 0; i < d; i++) log_det += op[OP] == SCALE ? one[i] : two[i];
    }
    if (tid == 0 && first == 0) log_dets[item[NUMBER]] = log_det * item[ROWS];
    __syncthreads();
    // A block writes the columns of the tiles that it has, and the one that has b those of the padding too.
    const int across = padded(d) / 8, size = padded(d) * padded(d), padding = first + columns > d ? padded(d) - d : 0;
    for (int e = tid; e < padded(d) * (columns + padding); e += THREADS) {
        const int i = e % padded(d), c = e / padded(d), column = c < columns ? first + c : d + c - columns;
        const float value = i < d && c < columns ? prefix[(size_t)i * width + c] : 0.0f;
        if (c < columns && column == d)
            to[size + i] = value;
        else
            to[(i / 8 * across + column / 8) * 64 + 2 * (i % 8 * 4 + column % 4) + column % 8 / 4] = value;
    }
}

// log p of every sample under the standard normal, −½‖z‖² − ½ d ln 2π plus its log-dets, and the cotangents of the mean
// of −log p. `sides` is that of sum_log_dets in map.cu; a block has a sample.
KERNEL(likelihood, const int* sides, int count, const float* rows, int capacity, const double* maps, int map_count, double constant, const float* z,
       int event, int samples, float* cotangent, float* for_log_det, double* log_probs) {
    SHARED(part_memory);
    double *parts = reinterpret_cast<double*>(part_memory), log_det = 0, squares = 0;
    const int sample = blockIdx.x, tid = threadIdx.x;
    const float weight = 1.0f / samples;
    for (int side = 0; side < count; side++) {
        const int each = sides[2 * side + 1];
        const float* from = rows + (size_t)sides[2 * side] * capacity + (size_t)sample * each;
        for (int r = tid; r < each; r += THREADS) log_det += from[r];
    }
    for (int m = tid; m < map_count; m += THREADS) log_det += maps[m];
    for (int i = tid; i < event; i += THREADS) {
        const float x = z[(size_t)sample * event + i];
        squares += static_cast<double>(x) * x;
        cotangent[(size_t)sample * event + i] = weight * x;
    }
    parts[tid] = log_det - 0.5 * squares;
    __syncthreads();
    if (tid > 0) return;
    double sum = constant;
    for (int i = 0; i < THREADS; i++) sum += parts[i];
    // What is no number in f32 is none.
    log_probs[sample] = static_cast<float>(sum);
    for_log_det[sample] = -weight;
}

// The cotangents of all prefixes of a map, where the sums have that of the whole: Ĝ → Mᵀ Ĝ for every elementary map M.
// They lie behind the prefixes, from the last to the first. A block has some of their columns.
KERNEL(pull_maps, const int* items, const int* lists, const float* parameters, const float* sums, float* scratch) {
    const int *item = items + blockIdx.x * ITEM, d = item[OUTPUTS], width = d + 1, first = blockIdx.y * COLUMNS, columns = min(COLUMNS, width - first);
    if (item[KIND] == LAYER || columns <= 0) return;
    float* to = scratch + item[SCRATCH] + (size_t)(item[OP_COUNT] + 1) * d * width + first;
    const float* from = sums + item[SUMS] + first;
    for (int k = item[OP_COUNT] - 1; k > 0; k--) {
        const int* op = lists + item[OPS] + k * OP_INTS;
        const float *one = parameters + op[FIRST], *two = parameters + op[SECOND];
        for (int e = threadIdx.x; e < d * columns; e += THREADS) {
            const int i = e / columns, c = e % columns;
            const float* column = from + c;
            float g = column[(size_t)i * width];
            int row = i;
            switch (op[OP]) {
            case SCALE: g *= expf(one[i]); break;
            case PERMUTE: row = lists[op[LIST] + i]; break;
            case UPPER:
                g *= expf(two[i]);
                for (int j = 0; j < i; j++) g += one[upper_row(j, d) + i - j - 1] * column[(size_t)j * width];
                break;
            default:
                for (int j = i + 1; j < d; j++) g += one[lower_row(j) + i] * column[(size_t)j * width];
            }
            to[(size_t)row * width + c] = g;
        }
        __syncthreads();
        from = to;
        to += (size_t)d * width;
    }
}

// Gradients of all parameters, of the sums and of what `pull_maps` left; log-dets have the cotangent −1 in all.
KERNEL(finish, const int* items, const int* lists, const float* constants, const float* parameters, const float* sums, const float* scratch, float* gradients) {
    const int *item = items + blockIdx.x * ITEM, d = item[OUTPUTS], inputs = item[INPUTS], first = blockIdx.y * NUMBERS, tid = threadIdx.x;
    const float* own = sums + item[SUMS];
    const int width = inputs + 1;
    if (item[KIND] == LAYER) {
        float* to = gradients + item[PARAMETERS];
        for (int i = first + tid; i < min(first + NUMBERS, d * width); i += THREADS)
            to[i % width < inputs ? i / width * inputs + i % width : d * inputs + i / width] = own[i];
        return;
    }
    const size_t size = (size_t)d * width;
    for (int k = item[OP_COUNT] - 1; k >= 0; k--) {
        const int* op = lists + item[OPS] + k * OP_INTS;
        const float* prefix = scratch + item[SCRATCH] + k * size;
        const float* g = k == item[OP_COUNT] - 1 ? own : scratch + item[SCRATCH] + (2 * item[OP_COUNT] - 1 - k) * size;
        float *one = gradients + op[FIRST], *two = gradients + op[SECOND];
        // Row i of the cotangent times row j of the prefix.
        auto product = [&](int i, int j) {
            const float *a = g + (size_t)i * width, *b = prefix + (size_t)j * width;
            float sum = 0;
            for (int c = 0; c < width; c++) sum += a[c] * b[c];
            return sum;
        };
        if (op[OP] == PERMUTE) continue;
        for (int e = first + tid; e < min(first + NUMBERS, d * d); e += THREADS) {
            const int i = e / d, j = e % d;
            const float for_offset = g[(size_t)i * width + d];
            if (op[OP] == SCALE) {
                if (i != j) continue;
                one[i] = (product(i, i) - constants[op[LIST] + i] * for_offset) * expf(parameters[op[FIRST] + i]) - item[ROWS];
                two[i] = for_offset;
            } else if (op[OP] == UPPER) {
                if (j > i) one[upper_row(i, d) + j - i - 1] = product(i, j);
                if (j == i) two[i] = product(i, i) * expf(parameters[op[SECOND] + i]) - item[ROWS];
            } else {
                if (j < i) one[lower_row(i) + j] = product(i, j);
                if (j == i) two[i] = for_offset;
            }
        }
    }
}

// Sums of squares of a gradient, a chunk of NUMBERS a block.
KERNEL(squares, const float* gradients, int count, double* partial) {
    SHARED(part_memory);
    double *parts = reinterpret_cast<double*>(part_memory), sum = 0;
    const int first = blockIdx.x * NUMBERS, tid = threadIdx.x;
    for (int i = first + tid; i < min(first + NUMBERS, count); i += THREADS) sum += static_cast<double>(gradients[i]) * gradients[i];
    parts[tid] = sum;
    __syncthreads();
    if (tid > 0) return;
    for (int i = 1; i < THREADS; i++) sum += parts[i];
    partial[blockIdx.x] = sum;
}

// What a step reports, the mean of −log p, the norm of the scaled gradient, 1 if both are finite and else 0; and what
// its update needs: whether there is one, and the factor of the gradient, which makes a longer one as long as `clip`.
// A norm whose square overflows counts as infinite, as the second moments would be.
KERNEL(conclude, const double* log_probs, int samples, const double* partial, int chunks, double scale, double clip, double* report, float* update) {
    SHARED(part_memory);
    double *parts = reinterpret_cast<double*>(part_memory), sum = 0, square = 0;
    const int tid = threadIdx.x;
    for (int i = tid; i < samples; i += THREADS) sum += log_probs[i];
    for (int i = tid; i < chunks; i += THREADS) square += partial[i];
    parts[tid] = sum;
    parts[THREADS + tid] = square;
    __syncthreads();
    if (tid > 0) return;
    for (int i = 1; i < THREADS; i++) {
        sum += parts[i];
        square += parts[THREADS + i];
    }
    const double norm = sqrt(square) * scale, clipped = norm > clip ? clip : norm;
    const bool good = is_finite(sum) && is_finite(norm) && is_finite(static_cast<float>(clipped * clipped));
    report[0] = -sum / samples;
    report[1] = norm;
    report[2] = good;
    update[0] = good;
    update[1] = static_cast<float>(scale * (norm > clip ? clip / norm : 1.0));
}

// Adam with decoupled weight decay, and the average of the weights where there is one: as in flow-train's optimiser.rs.
// `rates` has η / (1 − β₁ᵗ), 1 − ηλ and 1 / (1 − β₂ᵗ).
KERNEL(adam, const float* rates, const float* update, int count, const float* gradients, float* parameters, float* first, float* second, float* average,
       float toward_first, float toward_second, float epsilon, float toward_average) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count || update[0] == 0) return;
    const float g = gradients[i] * update[1], moved = first[i] + toward_first * (g - first[i]);
    const float m = fabsf(moved) < 1.17549435e-38f ? 0.0f : moved, v = second[i] + toward_second * (g * g - second[i]);
    const float theta = rates[1] * parameters[i] - rates[0] * m / (sqrtf(v * rates[2]) + epsilon);
    first[i] = m;
    second[i] = v;
    parameters[i] = theta;
    if (toward_average > 0) average[i] += toward_average * (theta - average[i]);
}
