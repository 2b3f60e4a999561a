#include "rng/initial.h"

#include <cmath>
#include <cstring>
#include <string_view>
#include <vector>

#include "rng/philox.cuh"
#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

constexpr uint32_t kInitDomain = 0x494e4954u;  // "INIT"
constexpr uint32_t kThreads = 256;

__global__ void matrix_kernel(float* out, uint64_t length, uint64_t seed, uint32_t tensor,
                              double scale) {
  const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  const uint2 key = make_uint2(static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < length;
       i += step) {
    const uint4 x = philox4x32(key, make_uint4(static_cast<uint32_t>(i),
                                               static_cast<uint32_t>(i >> 32), tensor,
                                               kInitDomain));
    int32_t sum = -262140;
    sum += static_cast<int32_t>((x.x & 0xffffu) + (x.x >> 16));
    sum += static_cast<int32_t>((x.y & 0xffffu) + (x.y >> 16));
    sum += static_cast<int32_t>((x.z & 0xffffu) + (x.z >> 16));
    sum += static_cast<int32_t>((x.w & 0xffffu) + (x.w >> 16));
    out[i] = __double2float_rn(__dmul_rn(static_cast<double>(sum), scale));
  }
}

__global__ void ones_kernel(float* out, uint64_t length) {
  const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < length;
       i += step) {
    out[i] = 1.0f;
  }
}

uint32_t blocks_for(const Device& device, uint64_t length) {
  const uint64_t wanted = (length + kThreads - 1) / kThreads;
  const auto most = static_cast<uint64_t>(device.multiprocessors()) * 16;
  return static_cast<uint32_t>(wanted < most ? wanted : most);
}

}  // namespace

void initial_parameters(Device& device, const cov_model_shape& shape, uint64_t seed,
                        float* parameters, uint64_t length) {
  require(cov_shape_check(&shape));
  if (parameters == nullptr || length != cov_parameter_count(&shape)) {
    raise(COV_INVALID_ARGUMENT, "initial parameters need a buffer of %llu floats",
          static_cast<unsigned long long>(cov_parameter_count(&shape)));
  }
  std::vector<cov_tensor_info> tensors(static_cast<size_t>(cov_tensor_count(&shape)));
  require(cov_tensor_table(&shape, tensors.data(), static_cast<int32_t>(tensors.size())));
  const double unit = std::sqrt(8.0 * 4294967295.0 / 12.0);
  const double residual = 0.02 / std::sqrt(2.0 * shape.layer_count);
  for (size_t t = 0; t < tensors.size(); ++t) {
    const cov_tensor_info& info = tensors[t];
    const std::string_view name(info.name);
    float* const out = parameters + info.offset;
    const uint32_t blocks = blocks_for(device, info.length);
    if (info.rank == 1) {
      COVENANT_LAUNCH(ones_kernel, blocks, kThreads, 0, device.stream(), out, info.length);
      continue;
    }
    const bool scaled = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
    COVENANT_LAUNCH(matrix_kernel, blocks, kThreads, 0, device.stream(), out, info.length, seed,
                    static_cast<uint32_t>(t), (scaled ? residual : 0.02) / unit);
  }
}

}  // namespace covenant::cuda
