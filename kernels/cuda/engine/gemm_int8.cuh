// Products of bytes: rows and lines of a matrix, quantised with one scale each (quantise.cuh), and exact sums.
// Tier A: the bits of the CPU's linear_int8, as long as k is below 2^17.
#pragma once

#include <cstdint>

#include "runtime/device.h"

namespace covenant::cuda {

// C (m, n) = init + (X (m, k) W (n, k)^T) * (scale of the row * scale of the line). Lines of X and of W lie `stride`
// bytes apart, a multiple of 16, with zeros from k on; so do their beginnings.
struct ProductInt8 {
  int64_t m, n, k, stride;
  const int8_t* x;
  const float* x_scales;
  const int8_t* w;
  const float* w_scales;
  const float* init;  // may be null, or c
  float* c;
};

constexpr int64_t int8_stride(int64_t k) { return (k + 15) / 16 * 16; }

void multiply(Stream stream, const ProductInt8& product);

}  // namespace covenant::cuda
