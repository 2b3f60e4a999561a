#include <algorithm>
#include <bit>
#include <cstdlib>
#include <memory>

#include "codec/range_coder.h"
#include "sparse/body.h"
#include "sparse/packed.h"

namespace covenant::sparse {
namespace {

using codec::Probability;

// One chunk between body and code.
struct Fields {
  int32_t scale_code = 0;
  uint16_t indices[COV_SPARSE_CHUNK];
  uint8_t values[COV_SPARSE_CHUNK];  // bit 0: sign, bit 1: level
};

// Coders of both directions: what is passed in is written and returned, or what is read is returned.
class Writing {
 public:
  explicit Writing(std::vector<uint8_t>& out) : coder_(out) {}
  bool bit(Probability& probability, bool value) {
    coder_.put(probability, value);
    return value;
  }
  uint32_t raw(uint32_t value, int bits) {
    coder_.put_raw(value, bits);
    return value;
  }
  static constexpr bool exhausted() { return false; }
  void finish() { coder_.finish(); }

 private:
  codec::RangeEncoder coder_;
};

class Reading {
 public:
  Reading(const uint8_t* code, uint64_t bytes) : coder_(code, bytes) {}
  bool bit(Probability& probability, bool) { return coder_.get(probability); }
  uint32_t raw(uint32_t, int bits) { return coder_.get_raw(bits); }
  bool exhausted() const { return coder_.exhausted(); }
  bool finished() const { return coder_.finished(); }

 private:
  codec::RangeDecoder coder_;
};

constexpr int kSizes = 13;        // floor(log2 d) of distances from 1 to 4096
constexpr int kModelledBits = 3;  // of a distance, below the leading one

// The probabilities of a block, and the walk over a chunk: the same for both directions.
template <typename Coder>
class Block {
 public:
  explicit Block(Coder& coder) : coder_(coder) {}

  // False when what is read is no chunk.
  bool chunk(const ChunkLayout& layout, int32_t mode, Fields& fields) {
    if (!scale(fields.scale_code)) return false;
    if (fields.scale_code == 0) return true;
    int32_t index = -1;
    int before = kSizes;
    for (int32_t j = 0; j < layout.kept; ++j) {
      const auto known = static_cast<uint32_t>(fields.indices[j] - index);
      const int size = distance_size(known, before);
      if (size >= kSizes) return false;
      uint32_t sign = fields.values[j] & 1;
      index += static_cast<int32_t>(distance(known, size, sign));
      if (index >= layout.n) return false;
      const bool high = mode == 2 && coder_.bit(level_, (fields.values[j] & 2) != 0);
      fields.indices[j] = static_cast<uint16_t>(index);
      fields.values[j] = static_cast<uint8_t>(sign | (high ? 2u : 0u));
      before = size;
    }
    return !coder_.exhausted();
  }

 private:
  bool scale(int32_t& code) {
    const int32_t expected = (last_scale_ + scale_before_) / 2;
    const int32_t known = code - expected;
    int32_t difference = 0;
    if (coder_.bit(scale_differs_, known != 0)) {
      const bool less = coder_.bit(scale_less_, known < 0);
      const auto magnitude = static_cast<uint32_t>(std::abs(known));
      const int known_size = std::max(0, static_cast<int>(std::bit_width(magnitude)) - 1);
      int size = 0;
      while (size < 8 && coder_.bit(scale_longer_[size], known_size > size)) ++size;
      uint32_t read = 1;
      for (int bit = size - 1; bit >= 0; --bit)
        read = read << 1 | (coder_.bit(scale_bits_[size][bit], (magnitude >> bit & 1) != 0) ? 1 : 0);
      difference = less ? -static_cast<int32_t>(read) : static_cast<int32_t>(read);
    }
    code = expected + difference;
    scale_before_ = last_scale_;
    last_scale_ = code;
    return code >= 0 && code <= kScaleCodeMax;
  }

  int distance_size(uint32_t known, int before) {
    const uint32_t size = static_cast<uint32_t>(std::bit_width(known)) - 1;
    uint32_t node = 1;
    for (int bit = 3; bit >= 0; --bit)
      node = node << 1 | (coder_.bit(sizes_[before][node], (size >> bit & 1) != 0) ? 1u : 0u);
    return static_cast<int>(node & 15);
  }

  // The bits below the leading one, and the sign.
  uint32_t distance(uint32_t known, int size, uint32_t& sign) {
    uint32_t node = 1;
    const int plain = std::max(0, size - kModelledBits);
    for (int bit = size - 1; bit >= plain; --bit)
      node = node << 1 | (coder_.bit(bits_[size][node], (known >> bit & 1) != 0) ? 1u : 0u);
    const uint32_t rest =
        coder_.raw((known & ((1u << plain) - 1)) << 1 | sign, plain + 1);
    sign = rest & 1;
    return node << plain | rest >> 1;
  }

  Coder& coder_;
  int32_t last_scale_ = kScaleCodeMax;
  int32_t scale_before_ = kScaleCodeMax;
  Probability scale_differs_, scale_less_;
  Probability scale_longer_[8];
  Probability scale_bits_[9][8];
  Probability sizes_[kSizes + 1][16];
  Probability bits_[kSizes][1 << kModelledBits];
  Probability level_;
};

void read_fields(const uint8_t* bytes, const ChunkLayout& layout, int32_t mode, Fields& fields) {
  fields.scale_code = bytes[0];
  if (fields.scale_code == 0) return;
  const uint8_t* const low = bytes + 1;
  const uint8_t* const upper = low + layout.low_bytes;
  const uint8_t* const values = upper + layout.upper_bytes;
  int32_t j = 0;
  for (int32_t byte = 0; byte < layout.upper_bytes; ++byte) {
    for (uint32_t rest = upper[byte]; rest != 0; rest &= rest - 1, ++j) {
      const int32_t row = byte * 8 + std::countr_zero(rest) - j;
      fields.indices[j] = static_cast<uint16_t>(
          row * 64 + static_cast<int32_t>(get_bits(low, static_cast<uint64_t>(j) * kLowBits, kLowBits)));
      const auto place = static_cast<uint32_t>(j * mode);
      fields.values[j] =
          static_cast<uint8_t>(values[place >> 3] >> (place & 7) & (mode == 2 ? 3 : 1));
    }
  }
}

void write_fields(const Fields& fields, const ChunkLayout& layout, int32_t mode, uint8_t* bytes) {
  bytes[0] = static_cast<uint8_t>(fields.scale_code);
  if (fields.scale_code == 0) return;
  uint8_t* const low = bytes + 1;
  uint8_t* const upper = low + layout.low_bytes;
  uint8_t* const values = upper + layout.upper_bytes;
  for (int32_t j = 0; j < layout.kept; ++j) {
    const auto place = static_cast<uint64_t>(j);
    put_bits(low, place * kLowBits, kLowBits, fields.indices[j] & 63u);
    set_bit(upper, static_cast<uint64_t>(fields.indices[j] >> 6) + place);
    put_bits(values, place * static_cast<uint64_t>(mode), mode, fields.values[j]);
  }
}

// Calls header(tensor header in the body) before the first chunk of each tensor and
// chunk(layout, bytes) for each chunk of the block; stops at false.
template <typename Header, typename ChunkOf>
bool walk_block(const PackedTable& table, BlockStart at, uint64_t chunks, const Header& header,
                const ChunkOf& chunk) {
  const ChunkLayout full(COV_SPARSE_CHUNK, table.format);
  while (chunks > 0) {
    const uint64_t length = table.tensors[at.tensor].length;
    if (length > 0 && at.chunk == 0) header(at.header_at);
    const uint64_t end = std::min(chunk_count(length), at.chunk + chunks);
    chunks -= end - at.chunk;
    for (uint64_t c = at.chunk; c < end; ++c) {
      const int32_t n = chunk_length(length, c);
      const ChunkLayout layout = n == COV_SPARSE_CHUNK ? full : ChunkLayout(n, table.format);
      if (!chunk(layout, at.header_at + chunk_at(c, full, table.format))) return false;
    }
    at = {at.tensor + 1, 0, at.header_at + tensor_size(length, table.format).bytes};
  }
  return true;
}

}  // namespace

void pack_block(const uint8_t* body, const PackedTable& table, BlockStart start, uint64_t chunks,
                std::vector<uint8_t>& code) {
  Writing coder(code);
  Block<Writing> block(coder);
  const auto fields = std::make_unique<Fields>();
  walk_block(
      table, start, chunks,
      [&](uint64_t at) {
        for (uint64_t i = 0; i < tensor_header_bytes(table.format); ++i) coder.raw(body[at + i], 8);
      },
      [&](const ChunkLayout& layout, uint64_t at) {
        read_fields(body + at, layout, table.format.mode, *fields);
        return block.chunk(layout, table.format.mode, *fields);
      });
  coder.finish();
}

bool unpack_block(const uint8_t* code, uint64_t code_bytes, const PackedTable& table,
                  BlockStart start, uint64_t chunks, uint8_t* body) {
  Reading coder(code, code_bytes);
  Block<Reading> block(coder);
  // Zeroed, because both directions look at what is passed in.
  const auto fields = std::make_unique<Fields>();
  const bool read = walk_block(
      table, start, chunks,
      [&](uint64_t at) {
        for (uint64_t i = 0; i < tensor_header_bytes(table.format); ++i)
          body[at + i] = static_cast<uint8_t>(coder.raw(0, 8));
      },
      [&](const ChunkLayout& layout, uint64_t at) {
        if (!block.chunk(layout, table.format.mode, *fields)) return false;
        write_fields(*fields, layout, table.format.mode, body + at);
        return true;
      });
  return read && coder.finished();
}

}  // namespace covenant::sparse
