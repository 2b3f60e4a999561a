// The fields of a chunk that keeps 64 of 4096 values, in 2-bit or 1-bit mode: the case that
// decoders meet all the time.
#pragma once

#include <cstdint>

namespace covenant::sparse {

// Indices from 48 bytes of low bits and 16 bytes of bitmap behind them. False when they break a
// rule of the format; `indices` is then undefined.
using DecodeFunction = bool (*)(const uint8_t* fields, uint16_t indices[64]);

bool decode64_portable(const uint8_t* fields, uint16_t indices[64]);
bool decode64_avx2(const uint8_t* fields, uint16_t indices[64]);
bool decode64_avx512vbmi(const uint8_t* fields, uint16_t indices[64]);

// What a merged chunk is summed in: per value the weighted sum and the weight of those that sent it.
struct SumAndWeight {
  float sum;
  float weight;
};

// theta -= rate·(sum / weight) at each of n values with a weight, fp32 quotient, product and
// difference; weight stands for divisor where that is not 0. Clears the sums.
using ApplyFunction = void (*)(float* theta, SumAndWeight* sums, int32_t n, float rate,
                               float divisor);

void apply_portable(float* theta, SumAndWeight* sums, int32_t n, float rate, float divisor);
void apply_avx2(float* theta, SumAndWeight* sums, int32_t n, float rate, float divisor);
void apply_avx512(float* theta, SumAndWeight* sums, int32_t n, float rate, float divisor);

}  // namespace covenant::sparse
