// Runs CUDA kernels on the host for tests: stands in the place of the kernels' own device.cuh.
//
// Every thread of a block is a fibre; barriers and instructions of whole warps switch between them, and blocks run one
// after another. Shared memory starts as NaN. What the environment says:
// EMULATE_SEED draws the order of the warps, each of which then runs as far as it can before the next: what a missing
// barrier lets happen; EMULATE_WITHOUT_BARRIER takes the barrier in that line away, which a test has to notice, of all
// programs or of the one whose first kernel has the name that EMULATE_WITHOUT_BARRIER_OF says.
// A barrier that not all threads reach is reported.
#pragma once
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__

namespace emulated {
struct Dim { unsigned x, y, z; };
struct Meeting { unsigned generation = 0, arrived = 0; };
// What the lanes of a warp bring to a matrix product.
struct Warp { Meeting meeting; float a[16][8], b[8][8]; float* d[32]; };
struct Fibre { ucontext_t start; jmp_buf at; std::vector<char> stack; Dim thread; bool begun, done; };
inline Dim block_index, block_dim, grid_dim;
inline std::vector<Fibre> fibres;
inline std::vector<Warp> warps;
inline Fibre* current;
inline jmp_buf scheduler;
inline Meeting block_meeting;
inline bool progress;
inline std::vector<float> shared;
inline std::function<void()> body;

inline unsigned number(const char* name) { const char* text = std::getenv(name); return text ? static_cast<unsigned>(std::atoi(text)) : 0; }
inline unsigned threads() { return block_dim.x * block_dim.y * block_dim.z; }

// Only a fibre's first switch goes by its context, whose system calls are slow.
inline void resume(Fibre& fibre) {
    current = &fibre;
    if (_setjmp(scheduler)) return;
    if (fibre.begun) _longjmp(fibre.at, 1);
    fibre.begun = true;
    setcontext(&fibre.start);
}
inline void yield() { if (!_setjmp(current->at)) _longjmp(scheduler, 1); }
inline void enter() {
    body();
    current->done = progress = true;
    _longjmp(scheduler, 1);
}

// Waits for all; the last does `work` for all of them.
template <class F> void meet(Meeting& meeting, unsigned all, F work) {
    const unsigned mine = meeting.generation;
    progress = true;
    if (++meeting.arrived == all) { work(); meeting.arrived = 0; meeting.generation++; return; }
    while (meeting.generation == mine) yield();
    progress = true;
}
inline void barrier(unsigned line, const char* program) {
    static const unsigned without = number("EMULATE_WITHOUT_BARRIER");
    static const char* of = std::getenv("EMULATE_WITHOUT_BARRIER_OF");
    if (line != without || (of && std::strcmp(of, program))) meet(block_meeting, threads(), [] {});
}

inline void run_block(unsigned seed) {
    const unsigned n = threads();
    fibres.resize(n);
    warps.assign((n + 31) / 32, Warp());
    block_meeting = Meeting();
    for (unsigned i = 0; i < n; i++) {
        Fibre& fibre = fibres[i];
        fibre.stack.resize(64 * 1024);
        fibre.thread = {i % block_dim.x, i / block_dim.x % block_dim.y, i / (block_dim.x * block_dim.y)};
        fibre.begun = fibre.done = false;
        getcontext(&fibre.start);
        fibre.start.uc_stack.ss_sp = fibre.stack.data();
        fibre.start.uc_stack.ss_size = fibre.stack.size();
        fibre.start.uc_link = nullptr;
        makecontext(&fibre.start, enter, 0);
    }
    std::vector<unsigned> order(warps.size());
    for (unsigned i = 0; i < order.size(); i++) order[i] = i;
    for (unsigned i = order.size(); seed && i > 1; i--) { seed = seed * 1664525u + 1013904223u; std::swap(order[i - 1], order[(seed >> 8) % i]); }
    for (unsigned left = n; left;) {
        bool any = false;
        left = 0;
        for (unsigned w : order) {
            unsigned alive;
            do {
                progress = false;
                alive = 0;
                for (unsigned i = w * 32; i < std::min(n, w * 32 + 32); i++) {
                    if (fibres[i].done) continue;
                    alive++;
                    resume(fibres[i]);
                }
                any |= progress;
            } while (seed && progress);
            left += alive;
        }
        if (left && !any) { std::fprintf(stderr, "emulated kernel: a barrier that not all threads reach\n"); std::_Exit(70); }
    }
}

inline void launch(Dim grid, Dim block, size_t shared_bytes, std::function<void()> f) {
    grid_dim = grid;
    block_dim = block;
    body = std::move(f);
    const unsigned seed = number("EMULATE_SEED");
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                shared.assign(shared_bytes / 4, NAN);
                block_index = {x, y, z};
                run_block(seed ? seed + x + 977 * y + 7919 * z : 0);
            }
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** p, std::index_sequence<I...>) { kernel(*static_cast<std::remove_reference_t<A>*>(p[I])...); }
template <class... A> void call(void (*kernel)(A...), void** p) { call(kernel, p, std::index_sequence_for<A...>()); }
// Bytes of a kernel's arguments: a launch within a capture keeps them.
template <class... A> const std::vector<size_t>* arguments(void (*)(A...)) {
    static const std::vector<size_t> sizes{sizeof(std::remove_reference_t<A>)...};
    return &sizes;
}
} // namespace emulated

#define threadIdx (emulated::current->thread)
#define blockIdx (emulated::block_index)
#define blockDim (emulated::block_dim)
#define gridDim (emulated::grid_dim)
#define SHARED(name) float* name = emulated::shared.data()
#define __syncthreads() emulated::barrier(__LINE__, EMULATED_PROGRAM)
inline int min(int a, int b) { return a < b ? a : b; }
inline float __uint_as_float(unsigned x) { float y; std::memcpy(&y, &x, 4); return y; }
inline int found_again(int x) { return x; }
inline unsigned __float_as_uint(float x) { unsigned y; std::memcpy(&y, &x, 4); return y; }
inline unsigned tf32(float x) { const unsigned u = __float_as_uint(x); return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & 0xffffe000u; }
inline void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    emulated::Warp& warp = emulated::warps[threadIdx.x / 32];
    for (int i = 0; i < 4; i++) warp.a[g + (i % 2) * 8][t + (i / 2) * 4] = __uint_as_float(a[i]);
    for (int i = 0; i < 2; i++) warp.b[t + i * 4][g] = __uint_as_float(b[i]);
    warp.d[lane] = d;
    emulated::meet(warp.meeting, 32, [&warp] {
        for (unsigned l = 0; l < 32; l++)
            for (unsigned i = 0; i < 4; i++)
                for (unsigned k = 0; k < 8; k++) warp.d[l][i] += warp.a[l / 4 + (i / 2) * 8][k] * warp.b[k][2 * (l % 4) + i % 2];
    });
}

// What the emulated compiler writes for every kernel that it finds, and the emulated driver looks for.
#define EMULATED_KERNEL(kernel)                                                                                            \
    extern "C" void emulated_##kernel(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, size_t shared, void** p) { \
        emulated::launch({gx, gy, gz}, {bx, by, bz}, shared, [=] { emulated::call(kernel, p); });                          \
    }                                                                                                                      \
    extern "C" const std::vector<size_t>* emulated_arguments_of_##kernel() { return emulated::arguments(kernel); }
