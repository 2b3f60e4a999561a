// The code of one block of the packed form of an update.
#pragma once

#include <cstdint>
#include <vector>

#include "sparse/layout.h"

namespace covenant::sparse {

// Where a block begins: a chunk of a tensor whose header lies at `header_at` in the body.
struct BlockStart {
  int32_t tensor;
  uint64_t chunk;
  uint64_t header_at;
};

// What the blocks of a table have in common.
struct PackedTable {
  const cov_tensor_info* tensors;
  int32_t tensor_count;
  cov_sparse_format format;
};

// Appends the code of a block of `chunks` chunks of a valid body. May throw std::bad_alloc.
void pack_block(const uint8_t* body, const PackedTable& table, BlockStart start, uint64_t chunks,
                std::vector<uint8_t>& code);

// Writes the chunks of a block into a zeroed body, and the tensor headers before them. False when the
// bytes are no code of that many chunks. Whether the chunks are valid remains to be checked.
bool unpack_block(const uint8_t* code, uint64_t code_bytes, const PackedTable& table,
                  BlockStart start, uint64_t chunks, uint8_t* body);

}  // namespace covenant::sparse
