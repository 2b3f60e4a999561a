// Projections of activations on the device. Tier A: the bits of cov_projection_encode and its
// family. x, z, y, gradients, basis and table are device memory; tokens are on the host.
#pragma once

#include "codec/projection.h"
#include "runtime/device.h"

namespace covenant::cuda {

void projection_encode(Device& device, const cov_projection& projection, const float* x,
                       const int32_t* tokens, int32_t rows, float* z);
void projection_decode(Device& device, const cov_projection& projection, const float* z,
                       const int32_t* tokens, int32_t rows, float* y);
void projection_decode_backward(Device& device, const cov_projection& projection,
                                const float* d_y, const float* z, const int32_t* tokens,
                                int32_t rows, float* d_z, float* d_basis, float* d_table);
void projection_encode_backward(Device& device, const cov_projection& projection,
                                const float* d_z, const float* x, const int32_t* tokens,
                                int32_t rows, float* d_x, float* d_basis, float* d_table);

}  // namespace covenant::cuda
