// Pass 3 of compress: the bytes of each chunk, put together in shared memory by one warp.
#include "sparse/chunk.cuh"
#include "sparse/compress.h"
#include "sparse/levels.cuh"

namespace covenant::cuda {
namespace {

constexpr uint32_t kWarps = 8;

// ORs `width` <= 16 bits into words at position `bit`.
__device__ __forceinline__ void put_bits(uint32_t* words, uint32_t bit, uint32_t width,
                                         uint32_t value) {
  const uint32_t shift = bit % 32;
  atomicOr(&words[bit / 32], value << shift);
  if (shift + width > 32) atomicOr(&words[bit / 32 + 1], value >> (32 - shift));
}

__global__ void __launch_bounds__(kWarps * 32)
    encode_kernel(SparsePlan plan, CompressWork work, uint32_t words_per_warp) {
  COVENANT_DYNAMIC_SHARED(uint32_t, all_words);
  if (*work.fault != ~0ull) return;
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t chunk = blockIdx.x * kWarps + warp;
  if (chunk >= plan.chunks) return;
  const int32_t t = tensor_of(plan, chunk);
  const TensorPlan& tensor = plan.tensors[t];
  const int32_t code = scale_code(work.top_scales[t], work.scales[chunk]);
  if (code == 0) return;  // the body is cleared before
  const uint32_t own = chunk - tensor.first_chunk;
  const ChunkShape& shape = shape_of_chunk(plan, tensor, own);
  uint32_t* const words = all_words + warp * words_per_warp;
  const uint32_t used = (static_cast<uint32_t>(shape.bytes) + 3) / 4;
  for (uint32_t i = lane; i < used; i += 32) words[i] = i == 0 ? static_cast<uint32_t>(code) : 0u;
  __syncwarp();

  const sparse::Levels levels = work.levels[t];
  const int32_t scale = work.scales[chunk] - kScaleBias;
  const float low_value = power(2 * scale + levels.low);
  const float high_value = power(2 * scale + levels.high);
  const float middle = levels.low == levels.high
                           ? __uint_as_float(0x7f800000u)
                           : __fmul_rn(__fadd_rn(low_value, high_value), 0.5f);
  const uint64_t first =
      tensor.first_kept + static_cast<uint64_t>(own) * static_cast<uint64_t>(plan.full.kept);
  float* const e = work.error_feedback + tensor.offset + static_cast<uint64_t>(own) * 4096;
  const uint32_t upper = 8u * (1u + static_cast<uint32_t>(shape.low_bytes));
  const uint32_t codes = upper + 8u * static_cast<uint32_t>(shape.upper_bytes);
  for (uint32_t j = lane; j < static_cast<uint32_t>(shape.kept); j += 32) {
    const uint32_t index = work.indices[first + j];
    const float value = work.values[first + j];
    const uint32_t negative = __float_as_uint(value) >> 31;
    const bool high = __uint_as_float(__float_as_uint(value) & 0x7fffffffu) > middle;
    put_bits(words, 8u + sparse::kLowBits * j, sparse::kLowBits, index & 63u);
    put_bits(words, upper + (index >> 6) + j, 1, 1u);
    if (plan.mode == 2)
      put_bits(words, codes + 2 * j, 2, negative | (high ? 2u : 0u));
    else
      put_bits(words, codes + j, 1, negative);
    const float magnitude = high ? high_value : low_value;
    e[index] = negative != 0 ? __fadd_rn(value, magnitude) : __fsub_rn(value, magnitude);
  }
  __syncwarp();
  uint8_t* const out = work.body + tensor.body_at + static_cast<uint64_t>(plan.header_bytes) +
                       static_cast<uint64_t>(own) * static_cast<uint64_t>(plan.full.bytes);
  for (uint32_t i = lane; i < static_cast<uint32_t>(shape.bytes); i += 32)
    out[i] = static_cast<uint8_t>(words[i / 4] >> (8 * (i % 4)));
}

}  // namespace

void launch_encode(Stream stream, const SparsePlan& plan, const CompressWork& work) {
  if (plan.chunks == 0) return;
  const uint32_t words = (static_cast<uint32_t>(plan.full.bytes) + 3) / 4 + 1;
  COVENANT_LAUNCH(encode_kernel, (plan.chunks + kWarps - 1) / kWarps, kWarps * 32,
                  kWarps * words * sizeof(uint32_t), stream, plan, work, words);
}

}  // namespace covenant::cuda
