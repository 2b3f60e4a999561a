// Where everything lies in the body of an update: follows from the tensor table and the format
// alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "covenant/sparse.h"

namespace covenant::sparse {

constexpr uint64_t kHeaderBytes = 12;
constexpr uint64_t kMergedHeaderBytes = 12;
constexpr int kLowBits = 6;

// Values kept in a chunk of n >= 1 values.
constexpr int32_t kept_count(int32_t n, int32_t keep_per_chunk) {
  return std::max(1, n * keep_per_chunk / COV_SPARSE_CHUNK);
}

constexpr uint64_t bytes_of_bits(uint64_t bits) { return (bits + 7) / 8; }

constexpr uint64_t chunk_count(uint64_t length) {
  return (length + COV_SPARSE_CHUNK - 1) / COV_SPARSE_CHUNK;
}

// The levels of a tensor are chosen from every sample_stride-th of its chunks, 32 to 63 of them, or
// all when there are fewer than 64. 0 for an empty tensor.
constexpr uint64_t kSampleChunks = 32;
constexpr uint64_t sample_stride(uint64_t chunks) {
  return chunks == 0 ? 0 : std::max<uint64_t>(1, chunks / kSampleChunks);
}

// Values in chunk `chunk` of a tensor.
constexpr int32_t chunk_length(uint64_t tensor_length, uint64_t chunk) {
  const uint64_t rest = tensor_length - chunk * COV_SPARSE_CHUNK;
  return static_cast<int32_t>(std::min<uint64_t>(rest, COV_SPARSE_CHUNK));
}

// Sizes of the four fields of one chunk.
struct ChunkLayout {
  int32_t n;     // values in the chunk
  int32_t kept;  // values sent
  int32_t low_bytes;
  int32_t upper_bits;
  int32_t upper_bytes;
  int32_t value_bits;
  int32_t value_bytes;

  ChunkLayout(int32_t values, cov_sparse_format format)
      : n(values),
        kept(kept_count(values, format.keep_per_chunk)),
        low_bytes(static_cast<int32_t>(bytes_of_bits(kLowBits * static_cast<uint64_t>(kept)))),
        upper_bits(kept + (values + 63) / 64),
        upper_bytes(static_cast<int32_t>(bytes_of_bits(static_cast<uint64_t>(upper_bits)))),
        value_bits(kept * format.mode),
        value_bytes(static_cast<int32_t>(bytes_of_bits(static_cast<uint64_t>(value_bits)))) {}

  int32_t bytes() const { return 1 + low_bytes + upper_bytes + value_bytes; }
};

constexpr uint64_t tensor_header_bytes(cov_sparse_format format) {
  return format.mode == 2 ? 4 : 2;
}

// Bytes and kept values of one tensor in the body.
struct TensorSize {
  uint64_t bytes;
  uint64_t kept;
};
TensorSize tensor_size(uint64_t length, cov_sparse_format format);

cov_status check_format(cov_sparse_format format);

// Ascending, disjoint, below 2^32 - 1, and inside a buffer of `length` floats.
cov_status check_tensors(const cov_tensor_info* tensors, int32_t tensor_count, uint64_t length);

// A status with one of the codes of cov_sparse_code and a printf-style message.
__attribute__((format(printf, 2, 3))) cov_status refuse(int32_t code, const char* format, ...);

inline uint16_t load_u16(const uint8_t* at) { return static_cast<uint16_t>(at[0] | at[1] << 8); }

inline uint32_t load_u32(const uint8_t* at) {
  return static_cast<uint32_t>(load_u16(at)) | static_cast<uint32_t>(load_u16(at + 2)) << 16;
}

inline void store_u16(uint8_t* at, uint16_t value) {
  at[0] = static_cast<uint8_t>(value);
  at[1] = static_cast<uint8_t>(value >> 8);
}

inline void store_u32(uint8_t* at, uint32_t value) {
  store_u16(at, static_cast<uint16_t>(value));
  store_u16(at + 2, static_cast<uint16_t>(value >> 16));
}

inline void set_bit(uint8_t* bytes, uint64_t bit) {
  bytes[bit >> 3] = static_cast<uint8_t>(bytes[bit >> 3] | 1u << (bit & 7));
}

// `width` <= 16 bits from position `bit`, least significant first; reads no byte beyond the field.
inline uint32_t get_bits(const uint8_t* bytes, uint64_t bit, int width) {
  uint32_t value = 0;
  int have = -static_cast<int>(bit & 7);
  for (const uint8_t* at = bytes + (bit >> 3); have < width; ++at, have += 8) {
    value |= have < 0 ? static_cast<uint32_t>(*at) >> -have : static_cast<uint32_t>(*at) << have;
  }
  return value & ((1u << width) - 1);
}

// ORs `width` <= 16 bits into zeroed bytes.
inline void put_bits(uint8_t* bytes, uint64_t bit, int width, uint32_t value) {
  uint64_t shifted = static_cast<uint64_t>(value) << (bit & 7);
  for (uint8_t* at = bytes + (bit >> 3); width > -7 && shifted != 0;
       ++at, width -= 8, shifted >>= 8) {
    *at = static_cast<uint8_t>(*at | shifted);
  }
}

// True if the bits from `bits` to the end of the byte they end in are zero.
inline bool trailing_bits_zero(const uint8_t* bytes, uint64_t bits) {
  return (bits & 7) == 0 || bytes[bits >> 3] >> (bits & 7) == 0;
}

}  // namespace covenant::sparse
