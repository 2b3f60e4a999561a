// Runs CUDA kernels as ordinary C++ on the CPU, for tests on machines without a GPU.
//
// A kernel's source is compiled by the C++ compiler with this header in place of the CUDA headers.
// The threads of a block are fibers; blocks run one after the other. What a GPU leaves undefined
// (a barrier that some threads never reach, a warp operation that a named lane does not take part
// in) ends the program with a sentence. COVENANT_EMULATION_ORDER=reverse or =shuffle runs threads
// and blocks in another order, which brings missing barriers to light.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct uint3 {
  unsigned x, y, z;
};

namespace covenant::emulation {

// One thread of the block that runs.
struct Thread;

// What a kernel can ask about itself.
struct Position {
  uint3 thread_index;
  uint3 block_index;
  dim3 block_size;
  dim3 grid_size;
};

// Of the thread that runs now.
const Position& position();
unsigned lane();

// Start of the block's dynamic shared memory, aligned to 128 bytes; filled with noise for each
// block.
void* dynamic_shared();

// Waits for all threads of the block; gives the number of them whose predicate is not 0.
unsigned block_barrier(bool predicate);

// What a warp does with the operands of its lanes once all lanes of the mask have arrived.
enum class WarpOperation { kSync, kShuffle, kBallot, kAdd, kMin, kMax, kMinSigned, kMaxSigned, kAnd,
                           kOr, kXor, kMatch };

// `source` is the lane to read from in a shuffle; a lane outside the mask is an error.
uint64_t warp(WarpOperation operation, uint32_t mask, uint64_t operand, unsigned source = 0);

// Copies of a thread that run beside it (cp.async), in the order of their issue: `taken` bytes from
// `from`, zeros up to `bytes`. They are made when they are waited for, in reverse order of threads when
// they are issued, in shuffled order at either time. A thread must not end before they are made.
void copy_async(void* to, const void* from, size_t bytes, size_t taken);
// Ends a group of copies; waits until at most `left` groups are not made.
void copy_async_commit();
void copy_async_wait(unsigned left);

// Runs `kernel` once for each thread of each block.
void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);

// Queues work on a cudaStream_t; null runs it at once. What is wrong is the next cudaGetLastError().
// COVENANT_EMULATION_FAULT=device:count makes all launches on a device fail after `count` more.
void launch_on(void* stream, std::function<void()> work);
// Whether that fault is to be now, on the current device (the runtime's lock held).
bool launch_fails();

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, void* stream,
            Arguments... arguments) {
  launch_on(stream, [=] {
    run_grid(grid, block, shared_bytes, [&] { kernel(static_cast<Parameters>(arguments)...); });
  });
}

}  // namespace covenant::emulation

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// Blocks run one at a time, so one copy is enough.
#define __shared__ static
#define __constant__ [[maybe_unused]] static

#define threadIdx (::covenant::emulation::position().thread_index)
#define blockIdx (::covenant::emulation::position().block_index)
#define blockDim (::covenant::emulation::position().block_size)
#define gridDim (::covenant::emulation::position().grid_size)
constexpr int warpSize = 32;

#include "emulation/intrinsics.h"
#include "emulation/runtime_api.h"
