// State root of parameters that lie on the device. Tier A: the bits of cov_state_root.
#pragma once

#include "covenant/hash.h"
#include "runtime/device.h"

namespace covenant::cuda {

// `parameters` is device memory of `length` floats. Waits for the result: the pieces are hashed on
// the device, their few digests joined on the host.
void state_root(Device& device, const float* parameters, uint64_t length,
                const cov_tensor_info* tensors, int32_t tensor_count,
                uint8_t root[COV_HASH_BYTES]);

}  // namespace covenant::cuda
