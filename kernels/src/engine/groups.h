// How batches are cut into what is computed together. The bits of gradients depend on it where partial
// sums meet, so the engines of all devices cut alike.
#pragma once

#include <algorithm>
#include <cstdint>

namespace covenant {

// Rows that go through the layers together: whole sequences, at least one.
constexpr int64_t kGroupRows = 1024;

constexpr int64_t kLogitsMax = int64_t{1} << 23;  // numbers in one chunk of logits' gradients

// Rows whose logits' gradients are kept together: as many as that allows, lest the gradient of the
// head's matrix is read and written again for every few rows.
inline int64_t head_chunk_rows(int64_t vocab) {
  return std::clamp<int64_t>(kLogitsMax / vocab, 12, kGroupRows);
}

}  // namespace covenant
