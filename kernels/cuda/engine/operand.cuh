// Rows that a matrix product reads: fp32, or bf16 when the model computes in bf16. One pointer is set.
#pragma once

#include <cstdint>

namespace covenant::cuda {

struct Rows {
  float* f32 = nullptr;
  uint16_t* bf16 = nullptr;
};

}  // namespace covenant::cuda
