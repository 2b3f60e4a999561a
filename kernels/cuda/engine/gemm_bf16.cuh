// Matrix products of bf16 operands on the tensor cores, sums in fp32. Tier B: equal bits on one type of
// device. Whatever m is, the sum of one element has one order: rows do not depend on how many are computed
// together.
#pragma once

#include <cstdint>

#include "runtime/device.h"

namespace covenant::cuda {

// One operand: element (i, l) of l along k at i * stride + l, or at l * stride + i.
struct Side {
  const uint16_t* data;
  int64_t stride;
  bool along_k;
};

// C (m, n) = init + A B with A(i, l) of `a` and B(l, j) of `b`. Rows of everything written lie n apart.
struct ProductBf16 {
  int64_t m, n, k;
  Side a, b;
  const float* init = nullptr;  // may be c
  float* c = nullptr;           // either the sums,
  uint16_t* rounded = nullptr;  // or the sums without init, rounded
  // With `rounded`: its columns are n / 2 of gate, then n / 2 of up, and this gets
  // silu(gate) * up (m, n / 2) of the rounded ones. Both operands lie along k.
  uint16_t* hidden = nullptr;
};

void multiply(Stream stream, const ProductBf16& product);

}  // namespace covenant::cuda
