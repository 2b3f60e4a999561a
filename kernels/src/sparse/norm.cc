#include "sparse/norm.h"

#include <cmath>

#include "sparse/body.h"
#include "sparse/path.h"

namespace covenant::sparse {

void count_magnitudes(const uint8_t* bytes, uint64_t length, cov_sparse_format format,
                      MagnitudeCounts& counts) {
  counts = {};
  TensorHeader header;
  read_tensor_header(bytes, format, header);
  const Levels levels = header.levels;
  counts.first = 2 * (header.top_scale - 254) + levels.low;
  const SparsePath& path = sparse_path();
  const ChunkLayout full(COV_SPARSE_CHUNK, format);
  for (uint64_t c = 0; c < chunk_count(length); ++c) {
    const int32_t n = chunk_length(length, c);
    const ChunkLayout layout = n == COV_SPARSE_CHUNK ? full : ChunkLayout(n, format);
    const uint8_t* const chunk = bytes + chunk_at(c, full, format);
    if (chunk[0] == 0) continue;
    const int32_t at = 2 * (chunk[0] - 1);  // of the low level
    const uint8_t* const codes = chunk + 1 + layout.low_bytes + layout.upper_bytes;
    const int32_t high = format.mode == 2 ? path.count_high(codes, layout.value_bytes) : 0;
    counts.counts[at] += static_cast<uint64_t>(layout.kept - high);
    counts.counts[at + levels.high - levels.low] += static_cast<uint64_t>(high);
  }
}

double norm_of(const MagnitudeCounts& counts) {
  double sum = 0;
  for (int32_t i = 0; i < MagnitudeCounts::kCounts; ++i) {
    if (counts.counts[i] == 0) continue;
    const double magnitude = static_cast<double>(power(counts.first + i));
    const double term = static_cast<double>(counts.counts[i]) * (magnitude * magnitude);
    sum = sum + term;
  }
  return std::sqrt(sum);
}

}  // namespace covenant::sparse
