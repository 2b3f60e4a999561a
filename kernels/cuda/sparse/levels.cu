// Pass 2 of compress: the two levels of each tensor.
#include "sparse/chunk.cuh"
#include "sparse/compress.h"
#include "sparse/levels.cuh"

namespace covenant::cuda {
namespace {

constexpr uint32_t kBins = 512;

struct Split {
  double energy[kBins];
  double low_sum[kBins];
  unsigned long long low_count[kBins];
  uint32_t counts[kBins];
  uint32_t best[kBins];
  uint32_t border[32];
  int32_t top;
};

// Counts the kept magnitudes of the sampled chunks. Counts are integers, so their order does not
// matter.
__device__ __forceinline__ void count_sample(const SparsePlan& plan, const CompressWork& work,
                                             const TensorPlan& tensor, Split* split) {
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t lane = threadIdx.x % 32;
  for (uint32_t i = threadIdx.x; i < tensor.samples; i += kBins)
    atomicMax(&split->top, work.scales[tensor.first_chunk + i * tensor.stride]);
  __syncthreads();
  for (uint32_t i = warp; i < tensor.samples; i += kBins / 32) {
    const uint32_t own = i * tensor.stride;
    const int32_t scale = work.scales[tensor.first_chunk + own];
    if (scale_code(split->top, scale) == 0) continue;
    const int32_t kept = shape_of_chunk(plan, tensor, own).kept;
    const float* const values =
        work.values + tensor.first_kept +
        static_cast<uint64_t>(own) * static_cast<uint64_t>(plan.full.kept);
    for (auto j = static_cast<int32_t>(lane); j < kept; j += 32) {
      const uint32_t key = __float_as_uint(values[j]) & 0x7fffffffu;
      atomicAdd(&split->counts[level_bin(key, scale - kScaleBias, split->border)], 1u);
    }
  }
  __syncthreads();
}

// The levels of one tensor. The sums run in ascending order in one thread; the energies of the 511
// splits are independent.
__global__ void __launch_bounds__(kBins) choose_levels_kernel(SparsePlan plan, CompressWork work) {
  COVENANT_DYNAMIC_SHARED(Split, split);
  if (*work.fault != ~0ull) return;
  const TensorPlan& tensor = plan.tensors[blockIdx.x];
  const uint32_t bin = threadIdx.x;
  if (bin < 32) split->border[bin] = kBorder[bin];
  if (bin == 0) split->top = 0;
  split->counts[bin] = 0;
  __syncthreads();
  count_sample(plan, work, tensor, split);
  const uint32_t here = split->counts[bin];
  split->low_count[bin] = here;
  split->low_sum[bin] = __dmul_rn(static_cast<double>(here),
                                  static_cast<double>(power(static_cast<int32_t>(bin) - 256)));
  __syncthreads();
  if (bin == 0) {
    double sum = 0;
    unsigned long long count = 0;
    for (uint32_t i = 0; i < kBins; ++i) {
      sum = __dadd_rn(sum, split->low_sum[i]);
      count += split->low_count[i];
      split->low_sum[i] = sum;
      split->low_count[i] = count;
    }
  }
  __syncthreads();
  const double sum = split->low_sum[kBins - 1];
  const unsigned long long count = split->low_count[kBins - 1];
  const double low_sum = split->low_sum[bin];
  const unsigned long long low_count = split->low_count[bin];
  double energy = -1;
  if (here > 0 && low_count < count) {
    const double high_sum = __dsub_rn(sum, low_sum);
    const double low = __ddiv_rn(__dmul_rn(low_sum, low_sum), static_cast<double>(low_count));
    const double high =
        __ddiv_rn(__dmul_rn(high_sum, high_sum), static_cast<double>(count - low_count));
    energy = __dadd_rn(low, high);
  }
  split->energy[bin] = energy;
  split->best[bin] = bin;
  // The first of the largest energies.
  for (uint32_t width = kBins / 2; width > 0; width /= 2) {
    __syncthreads();
    if (bin < width) {
      const uint32_t a = split->best[bin];
      const uint32_t b = split->best[bin + width];
      const double x = split->energy[a];
      const double y = split->energy[b];
      split->best[bin] = y > x || (y == x && b < a) ? b : a;
    }
  }
  __syncthreads();
  if (bin != 0) return;
  sparse::Levels levels = {0, 0};
  if (count > 0) {
    double low_mean = __ddiv_rn(sum, static_cast<double>(count));
    double high_mean = low_mean;
    const uint32_t best = split->best[0];
    if (split->energy[best] > -1) {
      low_mean = __ddiv_rn(split->low_sum[best], static_cast<double>(split->low_count[best]));
      high_mean = __ddiv_rn(__dsub_rn(sum, split->low_sum[best]),
                            static_cast<double>(count - split->low_count[best]));
    }
    constexpr int32_t bias = sparse::kLevelBias;
    levels.low = min(max(log32(low_mean, split->border), bias - 255), bias);
    levels.high = max(levels.low, min(max(log32(high_mean, split->border), -bias), 255 - bias));
  }
  work.levels[blockIdx.x] = levels;
}

}  // namespace

void launch_levels(Stream stream, const SparsePlan& plan, const CompressWork& work) {
  if (plan.tensor_count == 0) return;
  COVENANT_LAUNCH(choose_levels_kernel, static_cast<uint32_t>(plan.tensor_count), kBins,
                  sizeof(Split), stream, plan, work);
}

}  // namespace covenant::cuda
