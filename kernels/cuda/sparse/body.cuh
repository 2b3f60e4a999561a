// Reading a chunk of a body: one warp, the bytes in shared memory.
#pragma once

#include "sparse/chunk.cuh"
#include "sparse/levels.cuh"

namespace covenant::cuda {

// Where the bytes of a chunk are put so that its bitmap starts on a word.
__device__ __forceinline__ uint32_t staging_shift(const ChunkShape& shape) {
  return 3u - static_cast<uint32_t>(shape.low_bytes) % 4u;
}

// Words of shared memory for one staged chunk. Reads of whole words may touch the last one.
__device__ __host__ __forceinline__ uint32_t staging_words(const ChunkShape& shape) {
  return (static_cast<uint32_t>(shape.bytes) + 3) / 4 + 2;
}

// A staged chunk.
struct StagedChunk {
  const uint8_t* bytes;
  ChunkShape shape;

  __device__ __forceinline__ uint32_t code() const { return bytes[0]; }
  __device__ __forceinline__ uint32_t words() const {
    return (static_cast<uint32_t>(shape.upper_bits) + 31) / 32;
  }
  // Word `w` of the bitmap without what follows it.
  __device__ __forceinline__ uint32_t word(uint32_t w) const {
    const auto* const upper =
        reinterpret_cast<const uint32_t*>(bytes + 1 + shape.low_bytes);
    const uint32_t rest = static_cast<uint32_t>(shape.upper_bits) - 32 * w;
    return rest >= 32 ? upper[w] : upper[w] & ((1u << rest) - 1u);
  }
  __device__ __forceinline__ uint32_t low(uint32_t j) const {
    const uint32_t bit = sparse::kLowBits * j;
    const uint8_t* const at = bytes + 1 + bit / 8;
    const uint32_t both = at[0] | static_cast<uint32_t>(at[1]) << 8;
    return both >> (bit % 8) & 63u;
  }
  // Bit 0: negative, bit 1: high.
  __device__ __forceinline__ uint32_t value(uint32_t j, uint32_t mode) const {
    const uint8_t* const codes = bytes + 1 + shape.low_bytes + shape.upper_bytes;
    return codes[j * mode / 8] >> (j * mode % 8) & ((1u << mode) - 1u);
  }
};

// Copies a chunk's bytes with one warp. `words` is shared memory.
__device__ __forceinline__ StagedChunk stage_chunk(const uint8_t* bytes, const ChunkShape& shape,
                                                   uint32_t* words) {
  uint8_t* const to = reinterpret_cast<uint8_t*>(words) + staging_shift(shape);
  for (uint32_t i = threadIdx.x % 32; i < static_cast<uint32_t>(shape.bytes); i += 32)
    to[i] = __ldg(bytes + i);
  __syncwarp();
  return {to, shape};
}

// Calls visit(j, index, bit position in the bitmap) for each kept value, 32 bits of the bitmap at a
// time. Returns the number of set bits. More than `kept` of them are not visited.
template <typename Visit>
__device__ __forceinline__ uint32_t visit_indices(const StagedChunk& chunk, const Visit& visit) {
  const uint32_t lane = threadIdx.x % 32;
  uint32_t before = 0;
  for (uint32_t w = 0; w < chunk.words(); ++w) {
    const uint32_t word = chunk.word(w);
    const uint32_t j = before + static_cast<uint32_t>(__popc(word & ((1u << lane) - 1u)));
    if ((word >> lane & 1u) != 0 && j < static_cast<uint32_t>(chunk.shape.kept)) {
      const uint32_t position = 32 * w + lane;
      visit(j, (position - j) * 64 + chunk.low(j), position);
    }
    before += static_cast<uint32_t>(__popc(word));
  }
  return before;
}

// What a tensor header says; twin of read_tensor_header.
struct DeviceHeader {
  int32_t top;
  sparse::Levels levels;
  bool zero;
  bool valid;
};

__device__ __forceinline__ DeviceHeader read_header(const uint8_t* at, int32_t mode) {
  DeviceHeader header{};
  header.top = static_cast<int16_t>(at[0] | at[1] << 8);
  header.zero = at[0] == 0 && at[1] == 0;
  header.valid = header.top <= sparse::kTopScaleMax && header.top >= -sparse::kTopScaleMax;
  if (mode != 2) return header;
  header.zero = header.zero && at[2] == 0 && at[3] == 0;
  if (header.zero) return header;
  header.levels.low = sparse::kLevelBias - at[2];
  header.levels.high = at[3] - sparse::kLevelBias;
  header.valid = header.valid && header.levels.low <= header.levels.high;
  return header;
}

}  // namespace covenant::cuda
