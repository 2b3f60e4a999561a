// The bytes of one chunk, put together in shared memory by one block.
#pragma once

#include "sparse/chunk.cuh"
#include "sparse/compress.h"
#include "sparse/levels.cuh"

namespace covenant::cuda {

// ORs `width` <= 16 bits into words at position `bit`.
__device__ __forceinline__ void put_bits(uint32_t* words, uint32_t bit, uint32_t width,
                                         uint32_t value) {
  const uint32_t shift = bit % 32;
  atomicOr(&words[bit / 32], value << shift);
  if (shift + width > 32) atomicOr(&words[bit / 32 + 1], value >> (32 - shift));
}

// Words of shared memory that a chunk takes.
__device__ __host__ __forceinline__ uint32_t words_of(const ChunkShape& shape) {
  return (static_cast<uint32_t>(shape.bytes) + 3) / 4 + 1;
}

// Writes all of a chunk but its scale code, which is known when the tensor's top scale is, and takes
// what is sent off the error feedback.
__device__ __forceinline__ void encode_chunk(const SparsePlan& plan, const CompressWork& work,
                                             int32_t t, const TensorPlan& tensor, uint32_t own,
                                             int32_t scale, uint32_t* words) {
  const ChunkShape shape = shape_of_chunk(plan, tensor, own);
  for (uint32_t i = threadIdx.x; i < words_of(shape); i += blockDim.x) words[i] = 0;
  __syncthreads();
  sparse::Levels levels = {0, 0};
  if (plan.mode == 2) levels = work.levels[t];
  const float low_value = power(2 * scale + levels.low);
  const float high_value = power(2 * scale + levels.high);
  const float middle = levels.low == levels.high
                           ? __uint_as_float(0x7f800000u)
                           : __fmul_rn(__fadd_rn(low_value, high_value), 0.5f);
  const uint64_t first =
      tensor.first_kept + static_cast<uint64_t>(own) * static_cast<uint64_t>(plan.full.kept);
  float* const e =
      work.error_feedback + tensor.offset + static_cast<uint64_t>(own) * COV_SPARSE_CHUNK;
  const uint32_t upper = 8u * (1u + static_cast<uint32_t>(shape.low_bytes));
  const uint32_t codes = upper + 8u * static_cast<uint32_t>(shape.upper_bytes);
  for (uint32_t j = threadIdx.x; j < static_cast<uint32_t>(shape.kept); j += blockDim.x) {
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
  __syncthreads();
  uint8_t* const out = work.body + tensor.body_at + static_cast<uint64_t>(plan.header_bytes) +
                       static_cast<uint64_t>(own) * static_cast<uint64_t>(plan.full.bytes);
  for (uint32_t i = threadIdx.x; i < static_cast<uint32_t>(shape.bytes); i += blockDim.x)
    out[i] = static_cast<uint8_t>(words[i / 4] >> (8 * (i % 4)));
}

}  // namespace covenant::cuda
