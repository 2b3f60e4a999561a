// Which layers of a model each stage of a pipeline holds.
#pragma once

#include <vector>

#include "engine/slice.cuh"

namespace covenant::cuda {

// The slices of `stages` devices, whole layers in order. The first stage holds the embedding, the last one
// the final norm and the head; a tied embedding is the head, so the last stage holds it. The last stage
// gets fewer layers, for the head's products.
std::vector<Slice> split(const cov_model_shape& shape, Compute compute, int64_t stages);

// Places of values [first, first + count) of the whole that lie in `parts`: at `local` of their buffer.
std::vector<Slice::Part> overlap(const std::vector<Slice::Part>& parts, uint64_t first, uint64_t count);

}  // namespace covenant::cuda
