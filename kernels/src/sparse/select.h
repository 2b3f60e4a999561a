// Exact top-k of one chunk.
#pragma once

#include <cstdint>

namespace covenant::sparse {

// Indices, ascending, of the `kept` largest magnitudes of values[0..n); equal magnitudes by lowest
// index. kept <= n, n <= 4096, values finite.
void select_largest(const float* values, int32_t n, int32_t kept, uint16_t* indices);

}  // namespace covenant::sparse
