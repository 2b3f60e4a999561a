// SHA-256 of pieces of device memory.
#pragma once

#include <vector>

#include "covenant/hash.h"
#include "runtime/device.h"

namespace covenant::cuda {

struct Piece {
  const void* at;  // aligned to 2
  uint64_t bytes;  // even
};

// digests[32·i] = SHA-256 of piece i, in host memory. Waits for the result.
void hash_pieces(Device& device, const std::vector<Piece>& pieces, uint8_t* digests);

}  // namespace covenant::cuda
