// Rotary embedding, in place on rows of (q | k | v) in fp32 or bf16. Tier A given the same table.
#pragma once

#include "runtime/device.h"

namespace covenant::cuda {

// Rotates the first `heads` heads of each row (row stride `width`) by its position; `backward` by the
// opposite angle.
template <typename T>
void rope(Stream stream, T* x, const int32_t* positions, const float* cosine, const float* sine,
          int64_t rows, int64_t width, int64_t heads, int64_t dim, bool backward);

}  // namespace covenant::cuda
