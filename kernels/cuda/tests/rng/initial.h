// Draws `first`, `first` + 1, ... of a seed, and signs of vector index % 7.
#pragma once

#include <cstdint>

#include "runtime/device.h"

void launch_draws(covenant::cuda::Stream stream, const uint8_t seed[32], uint32_t first,
                  uint32_t count, double* uniforms, int* signs);
