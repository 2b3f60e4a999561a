// Initial parameters of a model, made on the device. Tier A: the bits of cov_initial_parameters.
#pragma once

#include "covenant/tensors.h"
#include "runtime/device.h"

namespace covenant::cuda {

// `parameters` is device memory of `length` floats. Queued on the device's stream.
void initial_parameters(Device& device, const cov_model_shape& shape, uint64_t seed,
                        float* parameters, uint64_t length);

}  // namespace covenant::cuda
