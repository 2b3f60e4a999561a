// What the updates of several peers are added up in, a chunk at a time, and how the sums change the
// parameters.
#pragma once

#include <cstdint>

namespace covenant::sparse {

// Weights that differ: per value the weighted sum and the weight of those that sent it.
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

// A divisor that follows from how many sent a value: a full chunk of these takes 20 KB and leaves
// room for the parameters in the first cache, where sums with weights fill it.
struct Tally {
  static constexpr int32_t kPeersMax = 31;
  alignas(64) float sums[4096];
  alignas(64) uint8_t counts[4096];
};

// theta -= rate·(sum / divisors[count]) at each of 4096 values that were sent, in the same
// arithmetic; there are 32 divisors, the first any number but 0. Clears the tally.
using ApplyTallyFunction = void (*)(float* theta, Tally& tally, float rate, const float* divisors);

void apply_tally_portable(float* theta, Tally& tally, float rate, const float* divisors);
void apply_tally_avx2(float* theta, Tally& tally, float rate, const float* divisors);
void apply_tally_avx512(float* theta, Tally& tally, float rate, const float* divisors);

}  // namespace covenant::sparse
