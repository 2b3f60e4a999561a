// Hashing many pieces of memory on several threads.
#pragma once

#include <cstdint>
#include <vector>

#include "core/thread_pool.h"

namespace covenant::hash {

struct Piece {
  const void* data;
  uint64_t bytes;
};

// digests[32·i] = SHA-256 of piece i. Tasks take two neighbouring pieces at once.
void hash_pieces(ThreadPool& pool, const std::vector<Piece>& pieces, uint8_t* digests);

}  // namespace covenant::hash
