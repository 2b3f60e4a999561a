// Copies from global to shared memory that run beside the threads (cp.async), and their emulated form.
#pragma once

#include "runtime/platform.h"

namespace covenant::cuda {

#if defined(__CUDACC__)

// 16 bytes, both ends aligned; zeros when `inside` is false (`from` is not read then).
__device__ __forceinline__ void copy_async_16(void* to, const void* from, bool inside) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(at), "l"(from), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}

// Until at most kLeft groups of this thread are under way. The copies of other threads are seen after a
// barrier of the block that follows.
template <int kLeft>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kLeft) : "memory");
}

// Brings the cache line of an address, which must be readable, to the second-level cache.
__device__ __forceinline__ void prefetch(const void* address) {
  asm volatile("prefetch.global.L2 [%0];\n" ::"l"(address));
}

#else

inline void copy_async_16(void* to, const void* from, bool inside) {
  emulation::copy_async(to, from, 16, inside ? 16 : 0);
}
inline void copy_async_commit() { emulation::copy_async_commit(); }
template <int kLeft>
void copy_async_wait() {
  emulation::copy_async_wait(kLeft);
}
// Reads it, so that an address that is not readable is found.
inline void prefetch(const void* address) { (void)*static_cast<const volatile char*>(address); }

#endif

constexpr int64_t kLineBytes = 128;

// Kernels with more than 48 KiB of dynamic shared memory have to ask for it.
template <typename Kernel>
void allow_shared(Kernel* kernel, size_t bytes) {
  if (bytes > 48 << 10)
    (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes));
}

}  // namespace covenant::cuda
