// The two block functions of SHA-256.
#pragma once

#include <cstddef>
#include <cstdint>

namespace covenant::hash {

// Folds `blocks` blocks of 64 bytes into the state.
using BlockFunction = void (*)(uint32_t state[8], const uint8_t* data, size_t blocks);

void sha256_blocks_portable(uint32_t state[8], const uint8_t* data, size_t blocks);
void sha256_blocks_shani(uint32_t state[8], const uint8_t* data, size_t blocks);
// Two messages at once: nearly the time of one.
void sha256_pair_shani(uint32_t first[8], const uint8_t* first_data, uint32_t second[8],
                       const uint8_t* second_data, size_t blocks);
bool sha256_has_instructions();

// Round constants of FIPS 180-4.
extern const uint32_t kRoundConstants[64];

// Incremental SHA-256.
class Sha256 {
 public:
  explicit Sha256(BlockFunction blocks);
  Sha256();
  void update(const void* data, size_t length);
  void finish(uint8_t digest[32]);

  // Adds as many whole blocks of two messages as both begin with, when neither has a partial block
  // yet, and returns their bytes; 0 where there is nothing to gain.
  static size_t update_pair(Sha256& first, const void* first_data, Sha256& second,
                            const void* second_data, size_t length);

 private:
  BlockFunction blocks_;
  uint32_t state_[8];
  uint64_t length_ = 0;
  uint8_t buffer_[64];
};

}  // namespace covenant::hash
