// Which parameters of a model a device holds, and where they lie in its buffers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "covenant/model.h"
#include "engine/model.h"
#include "engine/optimizer.cuh"

namespace covenant::cuda {

struct Slice {
  // Parameters [global, global + count) of the model at `local` of the device's buffers. global and local
  // agree modulo kAdamwChunk, so that sums over chunks of a buffer are sums over chunks of the model.
  struct Part {
    uint64_t global, local, count;
  };
  std::vector<Part> parts;  // ascending
  Layout layout;            // offsets are local
  uint64_t count;           // floats of a buffer, gaps between parts included
  int64_t layers_before;    // in the model

  // Everything, as it lies in the model.
  static Slice whole(const cov_model_shape& shape, Compute compute) {
    const uint64_t count = cov_parameter_count(&shape);
    return {{{0, 0, count}}, Layout(shape, compute), count, 0};
  }
};

}  // namespace covenant::cuda
