// Walking through the body of an update.
#pragma once

#include <cstdint>

#include "sparse/chunk.h"
#include "sparse/layout.h"

namespace covenant::sparse {

// The header of an update in either form.
cov_status check_header(const uint8_t* bytes, uint64_t length, const char magic[4],
                        int32_t tensor_count, cov_sparse_format format);

// Header and total size. After COV_OK every tensor header and chunk lies inside the body.
cov_status check_body_frame(const uint8_t* body, uint64_t body_bytes,
                            const cov_tensor_info* tensors, int32_t tensor_count,
                            cov_sparse_format format);

// What a tensor header says.
struct TensorHeader {
  int32_t top_scale = 0;
  Levels levels;
};

// COV_OK or the reason of refusal.
int32_t read_tensor_header(const uint8_t* bytes, cov_sparse_format format, TensorHeader& header);

// Start of a chunk relative to the tensor header.
inline uint64_t chunk_at(uint64_t chunk, const ChunkLayout& full, cov_sparse_format format) {
  return tensor_header_bytes(format) + chunk * static_cast<uint64_t>(full.bytes());
}

cov_status refuse_tensor(int32_t code, const cov_tensor_info& tensor, uint64_t chunk);

// Validates the body while calling visit(tensor, first index of the chunk in the flat buffer,
// chunk) for each chunk that sends something, in ascending order. Without kValues the chunk has
// only its number of values.
template <bool kValues = true, typename Visit>
cov_status visit_chunks(const uint8_t* body, uint64_t body_bytes, const cov_tensor_info* tensors,
                        int32_t tensor_count, cov_sparse_format format, const Visit& visit) {
  if (cov_status status = check_body_frame(body, body_bytes, tensors, tensor_count, format);
      status.code != COV_OK) {
    return status;
  }
  const SparsePath& path = sparse_path();
  const ChunkLayout full(COV_SPARSE_CHUNK, format);
  const uint8_t* at = body + kHeaderBytes;
  Chunk chunk;
  for (int32_t t = 0; t < tensor_count; ++t) {
    TensorHeader header;
    if (const int32_t reason = read_tensor_header(at, format, header); reason != COV_OK) {
      return refuse_tensor(reason, tensors[t], 0);
    }
    int32_t top_code = 0;
    const uint64_t chunks = chunk_count(tensors[t].length);
    for (uint64_t c = 0; c < chunks; ++c) {
      const int32_t n = chunk_length(tensors[t].length, c);
      const ChunkLayout layout = n == COV_SPARSE_CHUNK ? full : ChunkLayout(n, format);
      const uint8_t* const bytes = at + chunk_at(c, full, format);
      const int32_t reason =
          kValues ? read_chunk(bytes, layout, format.mode, header.top_scale, header.levels, chunk)
                  : check_chunk(path, bytes, layout, format.mode, header.top_scale, header.levels,
                                chunk);
      if (reason != COV_OK) return refuse_tensor(reason, tensors[t], c);
      if (bytes[0] > top_code) top_code = bytes[0];
      if (chunk.kept > 0)
        visit(t, tensors[t].offset + c * COV_SPARSE_CHUNK, static_cast<const Chunk&>(chunk));
    }
    // A tensor that sends nothing has an all-zero header; any other uses its top scale.
    const uint64_t header_bytes = tensor_header_bytes(format);
    bool header_zero = true;
    for (uint64_t i = 0; i < header_bytes; ++i) header_zero &= at[i] == 0;
    if (format.mode == 2 && header_zero && top_code != 0) {
      return refuse_tensor(COV_SPARSE_LEVELS_OUT_OF_ORDER, tensors[t], 0);
    }
    if (top_code == 0 ? !header_zero : top_code != kScaleCodeMax) {
      return refuse_tensor(COV_SPARSE_NOT_CANONICAL, tensors[t], 0);
    }
    at += tensor_size(tensors[t].length, format).bytes;
  }
  return cov_ok();
}

}  // namespace covenant::sparse
