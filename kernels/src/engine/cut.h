// Cuts one block of memory into pieces.
#pragma once

#include <cstdint>

#include "engine/isa/table.h"

namespace covenant {

// Pieces in whole cache lines, one after the other. With no block it only counts, so that the same
// code says how much is needed and where it lies.
class Cut {
 public:
  explicit Cut(float* base) : base_(base) {}
  float* take(int64_t count) {
    float* const piece = base_ == nullptr ? nullptr : base_ + floats_;
    floats_ += (count + 15) / 16 * 16;
    return piece;
  }
  Bf16* take16(int64_t count) { return reinterpret_cast<Bf16*>(take((count + 1) / 2)); }
  int64_t floats() const { return floats_; }  // taken so far

 private:
  float* base_;
  int64_t floats_ = 0;
};

}  // namespace covenant
