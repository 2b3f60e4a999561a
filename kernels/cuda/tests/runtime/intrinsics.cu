// A kernel that uses everything the emulation offers. The expected values are computed by loops in
// intrinsics.cc, so the test holds the emulation and a real GPU to the same rules.
#include "intrinsics.h"

#include "runtime/platform.h"

namespace {

__constant__ uint32_t kWeights[4] = {1, 10, 100, 1000};

__device__ uint32_t value_of(uint32_t thread) { return thread * 2654435761u >> 7; }

__global__ void report_kernel(ThreadReport* reports, uint32_t* total) {
  COVENANT_DYNAMIC_SHARED(uint32_t, shared);
  __shared__ uint32_t sum;
  const uint32_t t = threadIdx.x;
  const uint32_t lane = t % 32;
  const uint32_t value = value_of(t + blockIdx.x);
  ThreadReport report;
  report.position = blockIdx.x * blockDim.x + t;
  report.from_left = __shfl_up_sync(0xffffffffu, value, 3);
  report.from_right = __shfl_down_sync(0xffffffffu, value, 5, 16);
  report.mirrored = __shfl_xor_sync(0xffffffffu, value, 9);
  report.broadcast = __shfl_sync(0xffffffffu, value, 7);
  report.ballot = __ballot_sync(0xffffffffu, value & 1);
  report.sum = __reduce_add_sync(0xffffffffu, value);
  report.largest = __reduce_max_sync(0xffffffffu, value);
  report.least = __reduce_min_sync(0xffffffffu, static_cast<int32_t>(value) - (1 << 24));
  report.same = __match_any_sync(0xffffffffu, value % 5);

  // Each thread reads what the thread mirrored in the block wrote.
  if (t == 0) sum = 0;
  shared[t] = value;
  __syncthreads();
  atomicAdd(&sum, shared[blockDim.x - 1 - t] * kWeights[t % 4]);
  report.agreeing = static_cast<uint32_t>(__syncthreads_count(value % 3 == 0));
  report.block_sum = sum;
  if (t == 0) atomicAdd(total, sum);

  // Only half a warp takes part.
  report.half = 0;
  if (lane < 16) {
    report.half = __reduce_add_sync(0x0000ffffu, value);
    __syncwarp(0x0000ffffu);
  }

  // Inclusive prefix sum in double.
  double prefix = static_cast<double>(value) * 0.5;
  for (uint32_t step = 1; step < 32; step *= 2) {
    const double other = __shfl_up_sync(0xffffffffu, prefix, step);
    if (lane >= step) prefix = __dadd_rn(prefix, other);
  }
  report.prefix = prefix;
  report.bits = __brev(value) ^ __funnelshift_l(value, ~value, lane) ^
                __byte_perm(value, ~value, 0x3715) ^ static_cast<uint32_t>(__clz(value)) ^
                static_cast<uint32_t>(__ffs(value)) << 8 ^ __umulhi(value, value << 9);
  reports[report.position] = report;
}

}  // namespace

void launch_report(covenant::cuda::Stream stream, uint32_t blocks, uint32_t threads,
                   ThreadReport* reports, uint32_t* total) {
  COVENANT_LAUNCH(report_kernel, blocks, threads, threads * sizeof(uint32_t), stream, reports,
                  total);
}
