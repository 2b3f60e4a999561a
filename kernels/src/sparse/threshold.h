// Search for the threshold that the largest keys of a chunk reach, the same for every vector width.
// Everything here has internal linkage: code compiled for one instruction set must not serve others.
#pragma once

#include <cstdint>

namespace covenant::sparse {
namespace {

struct Bracket {
  uint32_t low;     // at least the wanted number of keys are at or above it
  uint32_t high;    // fewer are
  int32_t at_high;  // how many
  bool exact;       // just the wanted number are at or above low
};

// Narrows the bracket until it is exact or holds one value; count(bound) is the number of keys at or
// above bound. The threshold is likely near `middle`, so the steps grow from there.
template <typename Count>
void narrow(Bracket& bracket, int32_t wanted, uint32_t middle, const Count& count) {
  auto& [low, high, at_high, exact] = bracket;
  for (uint32_t step = 1u << 17; !exact && high - low > 1; step <<= 1) {
    if (middle <= low || middle >= high) middle = low + (high - low) / 2;
    const int32_t above = count(middle);
    if (above < wanted) {
      high = middle;
      at_high = above;
      middle = step < high ? high - step : 0;
    } else {
      low = middle;
      exact = above == wanted;
      middle = low + step;
    }
  }
}

}  // namespace
}  // namespace covenant::sparse
