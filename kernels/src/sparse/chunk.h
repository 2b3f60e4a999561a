// Reading and writing one chunk of an update.
#pragma once

#include <cstdint>

#include "sparse/layout.h"
#include "sparse/levels.h"
#include "sparse/path.h"

namespace covenant::sparse {

// Writes a chunk into zeroed bytes. values[j] belongs to indices[j]; what each is coded as is taken
// off it, and the rest written to e[indices[j]].
void write_chunk(const SparsePath& path, uint8_t* bytes, const ChunkLayout& layout, int32_t mode,
                 int32_t scale_code, int32_t scale, Levels levels, const uint16_t* indices, const float* values,
                 float* e);

// A parsed chunk. kept is 0 when it sends nothing.
struct Chunk {
  int32_t kept = 0;
  bool any_high = false;
  uint16_t indices[COV_SPARSE_CHUNK];
  float values[COV_SPARSE_CHUNK];
};

// Reads and validates a chunk that lies wholly inside the body. top_scale and levels come from the
// tensor header. Returns COV_OK or the reason of refusal; `chunk` is then undefined.
int32_t read_chunk(const uint8_t* bytes, const ChunkLayout& layout, int32_t mode, int32_t top_scale,
                   Levels levels, Chunk& chunk);

// The same verdict without the values: of `chunk` only kept is defined.
int32_t check_chunk(const SparsePath& path, const uint8_t* bytes, const ChunkLayout& layout,
                    int32_t mode, int32_t top_scale, Levels levels, Chunk& chunk);

}  // namespace covenant::sparse
