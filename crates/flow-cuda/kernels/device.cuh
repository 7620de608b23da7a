// What the kernels need of a device besides CUDA C itself. For tests on machines without one, the emulation brings
// another file of this name: nothing else differs between the two.
#pragma once

// The shared memory of a block, as long as the launch says.
#define SHARED(name) extern __shared__ float name[]

// x to 10 bits of mantissa, to nearest, ties away from zero: what a tensor core takes.
__device__ __forceinline__ unsigned tf32(float x) {
    unsigned y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

// d += a b for a of 16 × 8 and b of 8 × 8, spread over the lanes of a warp as the PTX ISA has it for mma.m16n8k8.
__device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same number, of which the compiler does not know that it is: what is computed of it is not kept from before.
__device__ __forceinline__ int found_again(int x) {
    asm volatile("" : "+r"(x));
    return x;
}
