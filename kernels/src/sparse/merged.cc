#include "sparse/merged.h"

#include <bit>
#include <cinttypes>
#include <cmath>
#include <cstring>

#include "core/given.h"

namespace covenant::sparse {

PositionLayout::PositionLayout(int32_t values, int32_t positions)
    : n(values),
      m(positions),
      bitmap(false),
      low_bits(std::bit_width(static_cast<uint32_t>(values / positions)) - 1) {
  low_bytes = bytes_of_bits(static_cast<uint64_t>(low_bits) * static_cast<uint64_t>(m));
  upper_bits = static_cast<uint64_t>(m + ((n - 1) >> low_bits));
  upper_bytes = bytes_of_bits(upper_bits);
  if (const uint64_t bitmap_bytes = bytes_of_bits(static_cast<uint64_t>(n));
      bitmap_bytes < bytes()) {
    bitmap = true;
    low_bytes = 0;
    upper_bits = static_cast<uint64_t>(n);
    upper_bytes = bitmap_bytes;
  }
}

void write_positions(uint8_t* bytes, const PositionLayout& layout, const uint16_t* positions) {
  uint8_t* const upper = bytes + layout.low_bytes;
  for (int32_t j = 0; j < layout.m; ++j) {
    const uint32_t position = positions[j];
    if (layout.bitmap) {
      set_bit(upper, position);
      continue;
    }
    const auto rank = static_cast<uint64_t>(j);
    put_bits(bytes, rank * static_cast<uint64_t>(layout.low_bits), layout.low_bits,
             position & ((1u << layout.low_bits) - 1));
    set_bit(upper, (position >> layout.low_bits) + rank);
  }
}

int32_t read_positions(const uint8_t* bytes, const PositionLayout& layout, uint16_t* positions) {
  const uint8_t* const upper = bytes + layout.low_bytes;
  int32_t j = 0;
  int32_t last = -1;
  for (uint64_t byte = 0; byte < layout.upper_bytes; ++byte) {
    for (uint32_t rest = upper[byte]; rest != 0; rest &= rest - 1) {
      const uint64_t bit = byte * 8 + static_cast<uint64_t>(std::countr_zero(rest));
      if (bit >= layout.upper_bits) return COV_SPARSE_TRAILING_BITS;
      if (j == layout.m) return COV_SPARSE_BITMAP_INVALID;
      int32_t position = static_cast<int32_t>(bit);
      if (!layout.bitmap) {
        const uint64_t low_at = static_cast<uint64_t>(j) * static_cast<uint64_t>(layout.low_bits);
        const uint32_t low = layout.low_bits == 0 ? 0 : get_bits(bytes, low_at, layout.low_bits);
        position = ((position - j) << layout.low_bits) + static_cast<int32_t>(low);
      }
      if (position >= layout.n) return COV_SPARSE_INDEX_OUT_OF_RANGE;
      if (position <= last) return COV_SPARSE_INDEX_NOT_ASCENDING;
      last = position;
      positions[j++] = static_cast<uint16_t>(position);
    }
  }
  if (j != layout.m) return COV_SPARSE_BITMAP_INVALID;
  const uint64_t low_total =
      static_cast<uint64_t>(layout.low_bits) * static_cast<uint64_t>(layout.m);
  if (!layout.bitmap && !trailing_bits_zero(bytes, low_total)) return COV_SPARSE_TRAILING_BITS;
  return COV_OK;
}

namespace {

cov_status refuse_chunk(int32_t code, const cov_tensor_info& tensor, uint64_t chunk) {
  return refuse(code, "merged update, tensor %s, chunk %" PRIu64 ": %s", tensor.name, chunk,
                cov_sparse_code_name(code));
}

cov_status check_frame(const uint8_t* merged, uint64_t merged_bytes, int32_t tensor_count) {
  if (merged_bytes < kMergedHeaderBytes) {
    return refuse(COV_SPARSE_WRONG_SIZE, "%" PRIu64 " bytes are less than a header", merged_bytes);
  }
  if (cov_status status = given("the bytes of an update", merged); status.code != COV_OK)
    return status;
  if (std::memcmp(merged, "CVM1", 4) != 0)
    return refuse(COV_SPARSE_WRONG_MAGIC, "this is not a merged update");
  if (merged[4] > COV_MERGE_ALL || merged[5] > 1) {
    return refuse(COV_SPARSE_WRONG_MODE, "rule %d, clipped %d are not known", merged[4], merged[5]);
  }
  const int32_t peers = load_u16(merged + 6);
  if (peers < 1 || peers > COV_SPARSE_PEERS_MAX) {
    return refuse(COV_SPARSE_NOT_CANONICAL, "a merged update of %d peers", peers);
  }
  if (const uint32_t count = load_u32(merged + 8); count != static_cast<uint32_t>(tensor_count)) {
    return refuse(COV_SPARSE_WRONG_TENSOR_COUNT, "%u tensors; the model has %d", count,
                  tensor_count);
  }
  return cov_ok();
}

// Validates while calling visit(tensor, first flat index, positions, m, little-endian values) for
// each chunk.
template <typename Visit>
cov_status visit_merged(const uint8_t* merged, uint64_t merged_bytes,
                        const cov_tensor_info* tensors, int32_t tensor_count, const Visit& visit) {
  if (cov_status status = check_tensors(tensors, tensor_count, UINT64_MAX); status.code != COV_OK)
    return status;
  if (cov_status status = check_frame(merged, merged_bytes, tensor_count); status.code != COV_OK)
    return status;
  const uint8_t* at = merged + kMergedHeaderBytes;
  const uint8_t* const end = merged + merged_bytes;
  uint16_t positions[COV_SPARSE_CHUNK];
  for (int32_t t = 0; t < tensor_count; ++t) {
    const uint64_t chunks = chunk_count(tensors[t].length);
    for (uint64_t c = 0; c < chunks; ++c) {
      const int32_t n = chunk_length(tensors[t].length, c);
      if (end - at < 2) return refuse_chunk(COV_SPARSE_WRONG_SIZE, tensors[t], c);
      const int32_t m = load_u16(at);
      at += 2;
      if (m > n) return refuse_chunk(COV_SPARSE_INDEX_OUT_OF_RANGE, tensors[t], c);
      if (m == 0) continue;
      const PositionLayout layout(n, m);
      const uint64_t value_bytes = 4 * static_cast<uint64_t>(m);
      if (static_cast<uint64_t>(end - at) < layout.bytes() + value_bytes) {
        return refuse_chunk(COV_SPARSE_WRONG_SIZE, tensors[t], c);
      }
      if (const int32_t reason = read_positions(at, layout, positions); reason != COV_OK) {
        return refuse_chunk(reason, tensors[t], c);
      }
      visit(t, tensors[t].offset + c * COV_SPARSE_CHUNK, positions, m, at + layout.bytes());
      at += layout.bytes() + value_bytes;
    }
  }
  if (at != end)
    return refuse(COV_SPARSE_WRONG_SIZE, "%td bytes follow the merged update", end - at);
  return cov_ok();
}

float load_f32(const uint8_t* at) { return std::bit_cast<float>(load_u32(at)); }

}  // namespace
}  // namespace covenant::sparse

using namespace covenant::sparse;
using covenant::unless_empty;

cov_status cov_merged_check(const uint8_t* merged, uint64_t merged_bytes,
                            const cov_tensor_info* tensors, int32_t tensor_count, uint64_t* kept) {
  uint64_t count = 0;
  const cov_status status =
      visit_merged(merged, merged_bytes, tensors, tensor_count,
                   [&](int32_t, uint64_t, const uint16_t*, int32_t m, const uint8_t*) {
                     count += static_cast<uint64_t>(m);
                   });
  if (kept != nullptr) *kept = status.code == COV_OK ? count : 0;
  return status;
}

cov_status cov_merged_apply(float* parameters, uint64_t length, const uint8_t* merged,
                            uint64_t merged_bytes, const cov_tensor_info* tensors,
                            int32_t tensor_count, float rate, int32_t* skipped,
                            int32_t* skipped_count) {
  const auto floats = static_cast<int64_t>(length);
  if (cov_status status = covenant::given("parameters, skipped and skipped_count",
                                          unless_empty(parameters, floats),
                                          unless_empty(skipped, tensor_count), skipped_count);
      status.code != COV_OK) {
    return status;
  }
  *skipped_count = 0;
  if (!std::isfinite(rate))
    return cov_error(COV_INVALID_ARGUMENT, "outerLearningRate is not finite");
  if (cov_status status = check_tensors(tensors, tensor_count, length); status.code != COV_OK)
    return status;
  int32_t count = 0;
  const auto find_non_finite = [&](int32_t t, uint64_t, const uint16_t*, int32_t m,
                                   const uint8_t* values) {
    if (count > 0 && skipped[count - 1] == t) return;
    bool finite = true;
    for (int32_t j = 0; j < m; ++j) finite &= std::isfinite(load_f32(values + 4 * j));
    if (!finite) skipped[count++] = t;
  };
  if (cov_status status =
          visit_merged(merged, merged_bytes, tensors, tensor_count, find_non_finite);
      status.code != COV_OK) {
    return status;
  }
  *skipped_count = count;
  int32_t next = 0;
  return visit_merged(
      merged, merged_bytes, tensors, tensor_count,
      [&](int32_t t, uint64_t first, const uint16_t* positions, int32_t m, const uint8_t* values) {
        while (next < count && skipped[next] < t) ++next;
        if (next < count && skipped[next] == t) return;
        for (int32_t j = 0; j < m; ++j) {
          float& theta = parameters[first + positions[j]];
          const float step = rate * load_f32(values + 4 * j);
          theta = theta - step;
        }
      });
}
