// Products in fp32 of so few rows that reading the matrix is what costs. Tier A: the bits of gemm.cuh.
#pragma once

#include "runtime/device.h"

namespace covenant::cuda {

constexpr int64_t kFewRowsF32Max = 64;

// C (m, n) = init + X (m, k) W (n, k)^T; everything lies row after row. One of the matrices is set.
struct ProductFew {
  int64_t m, n, k;
  const float* x;
  const float* w;
  const uint16_t* w16;  // widened, which is exact
  const float* init;    // may be null, or c
  float* c;
};

// Whether rows and addresses let the kernel read 16 bytes at once, and there are few rows.
bool takes_few_rows(const ProductFew& product);
void multiply_few_rows(Stream stream, const ProductFew& product);

}  // namespace covenant::cuda
