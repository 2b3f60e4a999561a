// Matrix products in fp32. Tier A: the sum of one element is one chain of fused multiply-adds in the order
// of k, the bits of the CPU's product, however many rows are computed together.
#pragma once

#include <cstdint>

#include "runtime/device.h"

namespace covenant::cuda {

// Distance from one product of a batch to the next: `inner` products, then `outer` groups of them.
struct BatchStride {
  int64_t inner = 0, outer = 0;
};

// C (m, n) = init + A B for inner * outer products; A(i, l) = a[i * a_row + l * a_k],
// B(l, j) = b[l * b_k + j * b_column]. In A and in B one of both strides is 1. `init` (null: zeros)
// has the strides of c and may be c.
struct Product {
  int64_t m, n, k;
  const float* a;
  int64_t a_row, a_k;
  const float* b;
  int64_t b_k, b_column;
  const float* init;
  float* c;
  int64_t c_row;
  int64_t inner = 1, outer = 1;
  BatchStride a_batch{}, b_batch{}, c_batch{};
  const uint16_t* b16 = nullptr;  // B in bf16, in place of b: widened, which is exact
};

void multiply(Stream stream, const Product& product);

}  // namespace covenant::cuda
