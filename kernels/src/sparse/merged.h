// Positions and layout of one chunk in a merged update.
#pragma once

#include <cstdint>

#include "sparse/layout.h"

namespace covenant::sparse {

// How the positions of m of n values are stored; follows from m and n.
struct PositionLayout {
  int32_t n;
  int32_t m;
  bool bitmap;
  int low_bits;
  uint64_t low_bytes;
  uint64_t upper_bits;
  uint64_t upper_bytes;

  // 1 <= m <= n <= 4096
  PositionLayout(int32_t values, int32_t positions);
  uint64_t bytes() const { return low_bytes + upper_bytes; }
};

// Writes ascending positions into zeroed bytes.
void write_positions(uint8_t* bytes, const PositionLayout& layout, const uint16_t* positions);

// Reads and validates positions; COV_OK or the reason of refusal.
int32_t read_positions(const uint8_t* bytes, const PositionLayout& layout, uint16_t* positions);

}  // namespace covenant::sparse
