// Pass 2 of compress: the two levels of each tensor.
#include "sparse/chunk.cuh"
#include "sparse/compress.h"
#include "sparse/levels.cuh"

namespace covenant::cuda {
namespace {

constexpr uint32_t kBins = 512;
constexpr uint32_t kHistogramThreads = 256;
constexpr uint32_t kChunksPerBlock = 64;

// Counts the kept magnitudes of 64 chunks. Counts are integers, so their order does not matter.
__global__ void __launch_bounds__(kHistogramThreads)
    histogram_kernel(SparsePlan plan, CompressWork work) {
  __shared__ uint32_t counts[kBins];
  __shared__ uint32_t border[32];
  if (*work.fault != ~0ull) return;
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t lane = threadIdx.x % 32;
  if (threadIdx.x < 32) border[lane] = kBorder[lane];
  uint32_t chunk = blockIdx.x * kChunksPerBlock;
  const uint32_t end = min(chunk + kChunksPerBlock, plan.chunks);
  // One round for each tensor that has chunks here.
  while (chunk < end) {
    const int32_t t = tensor_of(plan, chunk);
    const TensorPlan& tensor = plan.tensors[t];
    const uint32_t round_end = min(end, tensor.first_chunk + tensor.chunks);
    for (uint32_t i = threadIdx.x; i < kBins; i += kHistogramThreads) counts[i] = 0;
    __syncthreads();
    for (uint32_t c = chunk + warp; c < round_end; c += kHistogramThreads / 32) {
      const int32_t scale = work.scales[c];
      if (scale_code(work.top_scales[t], scale) == 0) continue;
      const uint32_t own = c - tensor.first_chunk;
      const int32_t kept = shape_of_chunk(plan, tensor, own).kept;
      const float* const values = work.values + tensor.first_kept +
                                  static_cast<uint64_t>(own) *
                                      static_cast<uint64_t>(plan.full.kept);
      for (auto j = static_cast<int32_t>(lane); j < kept; j += 32) {
        const uint32_t key = __float_as_uint(values[j]) & 0x7fffffffu;
        atomicAdd(&counts[level_bin(key, scale - kScaleBias, border)], 1u);
      }
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < kBins; i += kHistogramThreads) {
      if (counts[i] > 0) atomicAdd(&work.histogram[static_cast<uint64_t>(t) * kBins + i], counts[i]);
    }
    __syncthreads();
    chunk = round_end;
  }
}

struct Split {
  double energy[kBins];
  double low_sum[kBins];
  unsigned long long low_count[kBins];
  uint32_t best[kBins];
  uint32_t border[32];
};

// The levels of one tensor, and its header. The sums run in ascending order in one thread; the
// energies of the 511 splits are independent.
__global__ void __launch_bounds__(kBins) choose_levels_kernel(SparsePlan plan, CompressWork work) {
  COVENANT_DYNAMIC_SHARED(Split, split);
  if (*work.fault != ~0ull) return;
  const auto t = static_cast<int32_t>(blockIdx.x);
  const int32_t top = work.top_scales[t];
  uint8_t* const header = work.body + plan.tensors[t].body_at;
  if (top == 0) {
    if (threadIdx.x == 0) work.levels[t] = {0, 0};
    return;
  }
  const uint32_t bin = threadIdx.x;
  if (bin < 32) split->border[bin] = kBorder[bin];
  uint32_t here = 0;
  if (plan.mode == 2) here = work.histogram[static_cast<uint64_t>(t) * kBins + bin];
  split->low_count[bin] = here;
  split->low_sum[bin] = __dmul_rn(static_cast<double>(here),
                                  static_cast<double>(power(static_cast<int32_t>(bin) - 256)));
  __syncthreads();
  if (bin == 0 && plan.mode == 2) {
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
  const int32_t unbiased = top - kScaleBias;
  header[0] = static_cast<uint8_t>(unbiased);
  header[1] = static_cast<uint8_t>(unbiased >> 8);
  sparse::Levels levels = {0, 0};
  if (plan.mode == 2 && count > 0) {
    double low_mean = __ddiv_rn(sum, static_cast<double>(count));
    double high_mean = low_mean;
    const uint32_t best = split->best[0];
    if (split->energy[best] > -1) {
      low_mean =
          __ddiv_rn(split->low_sum[best], static_cast<double>(split->low_count[best]));
      high_mean = __ddiv_rn(__dsub_rn(sum, split->low_sum[best]),
                            static_cast<double>(count - split->low_count[best]));
    }
    constexpr int32_t bias = sparse::kLevelBias;
    levels.low = min(max(log32(low_mean, split->border), bias - 255), bias);
    levels.high = max(levels.low, min(max(log32(high_mean, split->border), -bias), 255 - bias));
  }
  if (plan.mode == 2) {
    header[2] = static_cast<uint8_t>(sparse::kLevelBias - levels.low);
    header[3] = static_cast<uint8_t>(levels.high + sparse::kLevelBias);
  }
  work.levels[t] = levels;
}

}  // namespace

void launch_levels(Stream stream, const SparsePlan& plan, const CompressWork& work) {
  if (plan.tensor_count == 0) return;
  if (plan.mode == 2 && plan.chunks > 0) {
    COVENANT_LAUNCH(histogram_kernel, (plan.chunks + kChunksPerBlock - 1) / kChunksPerBlock,
                    kHistogramThreads, 0, stream, plan, work);
  }
  COVENANT_LAUNCH(choose_levels_kernel, static_cast<uint32_t>(plan.tensor_count), kBins,
                  sizeof(Split), stream, plan, work);
}

}  // namespace covenant::cuda
