// How batches are cut into what is computed together. The bits of gradients depend on it where partial
// sums meet, so the engines of all devices cut alike.
#pragma once

#include <algorithm>
#include <cstdint>

namespace covenant {

// Rows that go through the layers together: whole sequences, at least one.
constexpr int64_t kGroupRows = 1024;

constexpr int64_t kLogitsMax = int64_t{1} << 21;  // floats of one chunk of logits: 8 MiB

// Rows of logits that are computed together.
inline int64_t head_chunk_rows(int64_t vocab) {
  return std::clamp<int64_t>(kLogitsMax / vocab, 12, 512);
}

}  // namespace covenant
