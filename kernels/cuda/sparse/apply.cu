// Applying a merged update that lies on the host to parameters on the device.
#include "sparse/merge.h"

#include <cmath>
#include <cstring>

#include "runtime/platform.h"
#include "sparse/merged.h"
#include "sparse/order.cuh"

namespace covenant::cuda {
namespace {

// One chunk of the merged update that has positions; its bytes begin behind m.
struct MergedChunk {
  uint64_t at;     // in the merged update
  uint64_t first;  // in the parameters
  int32_t tensor;
  int32_t n;
  int32_t m;
  int32_t bitmap;
  uint32_t low_bits;
  uint32_t low_bytes;
  uint32_t upper_bits;
  uint32_t bytes;  // of the positions
};

__device__ __forceinline__ uint32_t load_word(const uint8_t* at, uint32_t have) {
  uint32_t word = 0;
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) word |= i < have ? static_cast<uint32_t>(at[i]) << (8 * i) : 0u;
  return word;
}

// Calls visit(j, position) for the positions of a chunk; false if they break a rule. Thread i takes
// bits 32·i to 32·i + 31 of the bitmap, which has at most 256 words.
template <typename Visit>
__device__ __forceinline__ bool visit_positions(const uint8_t* bytes, const MergedChunk& chunk,
                                                uint32_t* sums, const Visit& visit) {
  const uint32_t warp = threadIdx.x / 32;
  const uint8_t* const upper = bytes + chunk.low_bytes;
  const uint32_t upper_bytes = chunk.bytes - chunk.low_bytes;
  uint32_t word = 0;
  if (4 * threadIdx.x < upper_bytes)
    word = load_word(upper + 4 * threadIdx.x, upper_bytes - 4 * threadIdx.x);
  const auto count = static_cast<uint32_t>(__popc(word));
  const uint32_t inclusive = warp_prefix(count);
  __syncthreads();
  if (threadIdx.x % 32 == 31) sums[warp] = inclusive;
  __syncthreads();
  uint32_t j = inclusive - count;
  uint32_t total = 0;
  for (uint32_t w = 0; w < kBlockWarps; ++w) {
    if (w < warp) j += sums[w];
    total += sums[w];
  }
  const auto m = static_cast<uint32_t>(chunk.m);
  const uint32_t width = chunk.low_bits;
  const auto low_of = [&](uint32_t k) {
    const uint32_t bit = k * width;
    return load_word(bytes + bit / 8, 3) >> (bit % 8) & ((1u << width) - 1u);
  };
  bool good = total == m;
  uint32_t before = threadIdx.x > 0 && 4 * threadIdx.x <= upper_bytes
                        ? upper[4 * threadIdx.x - 1] >> 7
                        : 0u;
  uint32_t last_bit = before != 0 ? 32 * threadIdx.x - 1 : 0xfffffffeu;
  for (uint32_t rest = word; rest != 0; rest &= rest - 1, ++j) {
    const uint32_t bit = 32 * threadIdx.x + static_cast<uint32_t>(__ffs(static_cast<int>(rest))) - 1;
    if (bit >= chunk.upper_bits || j >= m) {
      good = false;
      break;
    }
    uint32_t position = bit;
    if (chunk.bitmap == 0) {
      const uint32_t low = low_of(j);
      // Neighbouring bits share their upper part, so the low bits must ascend.
      if (last_bit + 1 == bit && low <= low_of(j - 1)) good = false;
      position = ((bit - j) << width) + low;
    }
    last_bit = bit;
    if (position >= static_cast<uint32_t>(chunk.n))
      good = false;
    else
      visit(j, position);
  }
  if (threadIdx.x == 0 && chunk.bitmap == 0 && width * m % 8 != 0)
    good = good && bytes[width * m / 8] >> (width * m % 8) == 0;
  return good;
}

// Checks positions and looks for values that are not finite.
__global__ void __launch_bounds__(kBlock)
    check_merged_kernel(const uint8_t* merged, const MergedChunk* chunks, uint32_t* fault,
                        uint32_t* non_finite) {
  __shared__ uint32_t sums[kBlockWarps];
  const MergedChunk chunk = chunks[blockIdx.x];
  const uint8_t* const bytes = merged + chunk.at;
  bool finite = true;
  const bool good = visit_positions(bytes, chunk, sums, [&](uint32_t j, uint32_t) {
    const uint32_t value = load_word(bytes + chunk.bytes + 4 * j, 4);
    finite = finite && (value & 0x7f800000u) != 0x7f800000u;
  });
  if (!good) atomicMax(fault, 1u);
  if (!finite) atomicMax(&non_finite[chunk.tensor], 1u);
}

__global__ void __launch_bounds__(kBlock)
    apply_merged_kernel(const uint8_t* merged, const MergedChunk* chunks, const uint32_t* skip,
                        float rate, float* parameters) {
  __shared__ uint32_t sums[kBlockWarps];
  const MergedChunk chunk = chunks[blockIdx.x];
  if (skip[chunk.tensor] != 0) return;
  const uint8_t* const bytes = merged + chunk.at;
  visit_positions(bytes, chunk, sums, [&](uint32_t j, uint32_t position) {
    const float value = __uint_as_float(load_word(bytes + chunk.bytes + 4 * j, 4));
    float& theta = parameters[chunk.first + position];
    theta = __fsub_rn(theta, __fmul_rn(rate, value));
  });
}

// The chunks that have positions, by walking over their sizes; false where the sizes do not fit.
bool list_chunks(const uint8_t* merged, uint64_t merged_bytes, const cov_tensor_info* tensors,
                 int32_t tensor_count, std::vector<MergedChunk>& list) {
  if (merged_bytes < sparse::kMergedHeaderBytes || std::memcmp(merged, "CVM1", 4) != 0)
    return false;
  const int32_t peers = sparse::load_u16(merged + 6);
  if (merged[4] > COV_MERGE_ALL || merged[5] > 1 || peers < 1 || peers > COV_SPARSE_PEERS_MAX ||
      sparse::load_u32(merged + 8) != static_cast<uint32_t>(tensor_count))
    return false;
  uint64_t at = sparse::kMergedHeaderBytes;
  for (int32_t t = 0; t < tensor_count; ++t) {
    for (uint64_t c = 0; c < sparse::chunk_count(tensors[t].length); ++c) {
      const int32_t n = sparse::chunk_length(tensors[t].length, c);
      if (merged_bytes - at < 2) return false;
      const int32_t m = sparse::load_u16(merged + at);
      at += 2;
      if (m > n) return false;
      if (m == 0) continue;
      const sparse::PositionLayout layout(n, m);
      const uint64_t bytes = layout.bytes() + 4 * static_cast<uint64_t>(m);
      if (merged_bytes - at < bytes) return false;
      list.push_back({at, tensors[t].offset + c * COV_SPARSE_CHUNK, t, n, m, layout.bitmap ? 1 : 0,
                      static_cast<uint32_t>(layout.low_bits),
                      static_cast<uint32_t>(layout.low_bytes),
                      static_cast<uint32_t>(layout.upper_bits),
                      static_cast<uint32_t>(layout.bytes())});
      at += bytes;
    }
  }
  return at == merged_bytes;
}

// The CPU's sentence about a merged update that is refused.
[[noreturn]] void refuse_merged(const uint8_t* merged, uint64_t merged_bytes,
                                const cov_tensor_info* tensors, int32_t tensor_count) {
  require(cov_merged_check(merged, merged_bytes, tensors, tensor_count, nullptr));
  raise(COV_INTERNAL, "a merged update is refused without a reason");
}

}  // namespace

void merged_apply(Device& device, float* parameters, uint64_t length, const uint8_t* merged,
                  uint64_t merged_bytes, const cov_tensor_info* tensors, int32_t tensor_count,
                  float rate, int32_t* skipped, int32_t* skipped_count) {
  *skipped_count = 0;
  if (!std::isfinite(rate)) raise(COV_INVALID_ARGUMENT, "outerLearningRate is not finite");
  require(sparse::check_tensors(tensors, tensor_count, length));
  std::vector<MergedChunk> list;
  if (!list_chunks(merged, merged_bytes, tensors, tensor_count, list))
    refuse_merged(merged, merged_bytes, tensors, tensor_count);
  if (list.empty()) return;
  const Arena::Scope scope(device.scratch());
  Arena& scratch = device.scratch();
  const auto tensors_size = static_cast<uint64_t>(tensor_count);
  auto* const bytes = scratch.take<uint8_t>(merged_bytes);
  auto* const chunks = scratch.take<MergedChunk>(list.size());
  auto* const fault = scratch.take<uint32_t>(1);
  auto* const non_finite = scratch.take<uint32_t>(tensors_size);
  device.upload(bytes, merged, merged_bytes);
  device.upload(chunks, list.data(), list.size() * sizeof(MergedChunk));
  device.fill_zero(fault, sizeof *fault);
  device.fill_zero(non_finite, tensors_size * sizeof(uint32_t));
  const auto blocks = static_cast<uint32_t>(list.size());
  COVENANT_LAUNCH(check_merged_kernel, blocks, kBlock, 0, device.stream(), bytes, chunks, fault,
                  non_finite);
  uint32_t found = 0;
  std::vector<uint32_t> skip(tensors_size);
  device.download(&found, fault, sizeof found);
  device.download(skip.data(), non_finite, tensors_size * sizeof(uint32_t));
  device.finish();
  if (found != 0) refuse_merged(merged, merged_bytes, tensors, tensor_count);
  COVENANT_LAUNCH(apply_merged_kernel, blocks, kBlock, 0, device.stream(), bytes, chunks,
                  non_finite, rate, parameters);
  device.finish();
  for (int32_t t = 0; t < tensor_count; ++t) {
    if (skip[static_cast<size_t>(t)] != 0) skipped[(*skipped_count)++] = t;
  }
}

}  // namespace covenant::cuda
