// Prefix sums of the sizes of chunks.
#include "sparse/merge.h"
#include "sparse/order.cuh"

namespace covenant::cuda {
namespace {

constexpr uint32_t kThreads = 1024;

// One block: at most 2^20 sizes, 1024 at a time.
__global__ void __launch_bounds__(kThreads)
    offsets_kernel(const uint32_t* sizes, uint32_t count, uint64_t first, uint64_t* offsets) {
  __shared__ uint32_t warp_sums[32];
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t warp = threadIdx.x / 32;
  uint64_t before = first;
  for (uint32_t base = 0; base < count; base += kThreads) {
    const uint32_t i = base + threadIdx.x;
    const uint32_t size = i < count ? sizes[i] : 0u;
    const uint32_t inclusive = warp_prefix(size);
    __syncthreads();
    if (lane == 31) warp_sums[warp] = inclusive;
    __syncthreads();
    // 1024 sizes of at most 17 KB fit 32 bits.
    const uint32_t sums = warp_prefix(warp_sums[lane]);
    const uint32_t total = __shfl_sync(kFullMask, sums, 31);
    const uint32_t earlier =
        __shfl_sync(kFullMask, sums, static_cast<int>(warp == 0 ? 0 : warp - 1));
    if (i < count) offsets[i] = before + (warp == 0 ? 0u : earlier) + (inclusive - size);
    before += total;
  }
  if (threadIdx.x == 0) offsets[count] = before;
}

}  // namespace

void launch_offsets(Stream stream, const uint32_t* sizes, uint32_t count, uint64_t first,
                    uint64_t* offsets) {
  COVENANT_LAUNCH(offsets_kernel, 1, kThreads, 0, stream, sizes, count, first, offsets);
}

}  // namespace covenant::cuda
