#include "sparse/chunk.h"

#include <bit>
#include <cmath>

namespace covenant::sparse {

void write_chunk(const SparsePath& path, uint8_t* bytes, const ChunkLayout& layout, int32_t mode,
                 int32_t scale_code, int32_t scale, Levels levels, const uint16_t* indices, const float* values,
                 float* e) {
  uint8_t* const low = bytes + 1;
  uint8_t* const upper = low + layout.low_bytes;
  const float low_value = power(2 * scale + levels.low);
  const float high_value = power(2 * scale + levels.high);
  const float middle = levels.low == levels.high ? INFINITY : (low_value + high_value) * 0.5f;
  bytes[0] = static_cast<uint8_t>(scale_code);
  // encode64 writes a bitmap of 16 bytes; that of a short chunk is smaller.
  const bool whole = layout.kept == 64 && layout.upper_bytes == 16;
  const EncodeFunction encode = whole ? path.encode64 : encode_portable;
  encode({low, upper, upper + layout.upper_bytes}, layout.kept, mode,
         {low_value, high_value, middle}, indices, values, e);
}

namespace {

// Positions of the set bits of the upper bitmap joined with the low bits.
int32_t read_indices(const uint8_t* low, const ChunkLayout& layout, Chunk& chunk) {
  const uint8_t* const upper = low + layout.low_bytes;
  int32_t j = 0;
  int32_t last = -1;
  for (int32_t byte = 0; byte < layout.upper_bytes; ++byte) {
    for (uint32_t rest = upper[byte]; rest != 0; rest &= rest - 1) {
      const int32_t bit = byte * 8 + std::countr_zero(rest);
      if (bit >= layout.upper_bits) return COV_SPARSE_TRAILING_BITS;
      if (j == layout.kept) return COV_SPARSE_BITMAP_INVALID;
      const uint32_t low_bits = get_bits(low, static_cast<uint64_t>(j) * kLowBits, kLowBits);
      const int32_t index = (bit - j) * 64 + static_cast<int32_t>(low_bits);
      if (index >= layout.n) return COV_SPARSE_INDEX_OUT_OF_RANGE;
      if (index <= last) return COV_SPARSE_INDEX_NOT_ASCENDING;
      last = index;
      chunk.indices[j++] = static_cast<uint16_t>(index);
    }
  }
  if (j != layout.kept) return COV_SPARSE_BITMAP_INVALID;
  if (!trailing_bits_zero(low, static_cast<uint64_t>(layout.kept) * kLowBits))
    return COV_SPARSE_TRAILING_BITS;
  return COV_OK;
}

}  // namespace

int32_t read_chunk(const uint8_t* bytes, const ChunkLayout& layout, int32_t mode, int32_t top_scale,
                   Levels levels, Chunk& chunk) {
  chunk.kept = 0;
  chunk.any_high = false;
  const int32_t scale_code = bytes[0];
  if (scale_code == 0) {
    for (int32_t i = 1; i < layout.bytes(); ++i) {
      if (bytes[i] != 0) return COV_SPARSE_NOT_CANONICAL;
    }
    return COV_OK;
  }
  const uint8_t* const low = bytes + 1;
  // The common layout has a fast reader; the slow one finds out what is wrong.
  const bool common = layout.kept == 64 && layout.n == COV_SPARSE_CHUNK;
  if (!common || !sparse_path().decode64(low, chunk.indices)) {
    if (const int32_t reason = read_indices(low, layout, chunk); reason != COV_OK) return reason;
  }
  const uint8_t* const codes = low + layout.low_bytes + layout.upper_bytes;
  if (!trailing_bits_zero(codes, static_cast<uint64_t>(layout.value_bits)))
    return COV_SPARSE_TRAILING_BITS;
  const int32_t scale = top_scale - kScaleCodeMax + scale_code;
  const float low_value = power(2 * scale + levels.low);
  const float high_value = power(2 * scale + levels.high);
  const float by_code[4] = {low_value, -low_value, high_value, -high_value};
  uint32_t seen = 0;
  for (int32_t j = 0; j < layout.kept; ++j) {
    const uint32_t place = static_cast<uint32_t>(j * mode);
    const uint32_t code = codes[place >> 3] >> (place & 7) & (mode == 2 ? 3 : 1);
    seen |= code;
    chunk.values[j] = by_code[code];
  }
  chunk.any_high = seen & 2;
  if (chunk.any_high && levels.low == levels.high) return COV_SPARSE_NOT_CANONICAL;
  chunk.kept = layout.kept;
  return COV_OK;
}

int32_t check_chunk(const SparsePath& path, const uint8_t* bytes, const ChunkLayout& layout,
                    int32_t mode, int32_t top_scale, Levels levels, Chunk& chunk) {
  // The value codes of 64 values fill whole bytes, so that all there is to check is the indices and
  // that nothing is high when there is one level.
  if (layout.kept == 64 && layout.n == COV_SPARSE_CHUNK && bytes[0] != 0 &&
      (mode == 1 || levels.low != levels.high) && path.decode64(bytes + 1, chunk.indices)) {
    chunk.kept = 64;
    return COV_OK;
  }
  return read_chunk(bytes, layout, mode, top_scale, levels, chunk);
}

}  // namespace covenant::sparse
