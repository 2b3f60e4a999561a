#include "initial.h"

#include "rng/philox.cuh"

namespace {

__global__ void draw_kernel(covenant::cuda::Seed seed, uint32_t first, uint32_t count,
                            double* uniforms, int* signs) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  uniforms[i] = covenant::cuda::uniform_at(seed, first + i);
  signs[i] = covenant::cuda::fingerprint_sign(seed, i % 7, first + i);
}

}  // namespace

void launch_draws(covenant::cuda::Stream stream, const uint8_t seed[32], uint32_t first,
                  uint32_t count, double* uniforms, int* signs) {
  COVENANT_LAUNCH(draw_kernel, (count + 127) / 128, 128, 0, stream, covenant::cuda::seed_of(seed),
                  first, count, uniforms, signs);
}
