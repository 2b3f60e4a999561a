// Writes what a body means again: for every accepted body this must give the same bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "sparse/body.h"

namespace covenant_test {

inline std::vector<uint8_t> reserialise(const std::vector<uint8_t>& body,
                                        const std::vector<cov_tensor_info>& tensors,
                                        cov_sparse_format format) {
  using namespace covenant::sparse;
  std::vector<uint8_t> out(body.size());
  std::copy_n(body.begin(), kHeaderBytes, out.begin());
  const ChunkLayout full(COV_SPARSE_CHUNK, format);
  uint64_t at = kHeaderBytes;
  for (const cov_tensor_info& tensor : tensors) {
    TensorHeader header;
    read_tensor_header(&body[at], format, header);
    store_u16(&out[at], static_cast<uint16_t>(header.top_scale));
    bool sends = false;
    for (uint64_t c = 0; c < chunk_count(tensor.length); ++c) {
      const ChunkLayout layout(chunk_length(tensor.length, c), format);
      const uint64_t chunk_start = at + chunk_at(c, full, format);
      Chunk chunk;
      read_chunk(&body[chunk_start], layout, format.mode, header.top_scale, header.levels, chunk);
      if (chunk.kept == 0) continue;
      sends = true;
      const int32_t code = body[chunk_start];
      float rest[COV_SPARSE_CHUNK];
      write_chunk(sparse_path(), &out[chunk_start], layout, format.mode, code,
                  header.top_scale - kScaleCodeMax + code, header.levels, chunk.indices,
                  chunk.values, rest);
    }
    if (sends && format.mode == 2) {
      out[at + 2] = static_cast<uint8_t>(kLevelBias - header.levels.low);
      out[at + 3] = static_cast<uint8_t>(header.levels.high + kLevelBias);
    }
    at += tensor_size(tensor.length, format).bytes;
  }
  return out;
}

}  // namespace covenant_test
