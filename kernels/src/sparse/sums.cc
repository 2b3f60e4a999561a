#include "sparse/sums.h"

namespace covenant::sparse {

void apply_portable(float* theta, SumAndWeight* sums, int32_t n, float rate, float divisor) {
  for (int32_t i = 0; i < n; ++i) {
    if (sums[i].weight == 0) continue;
    const float step = rate * (sums[i].sum / (divisor != 0 ? divisor : sums[i].weight));
    theta[i] = theta[i] - step;
    sums[i] = {0, 0};
  }
}

void apply_tally_portable(float* theta, Tally& tally, float rate, const float* divisors) {
  for (int32_t i = 0; i < 4096; ++i) {
    if (tally.counts[i] == 0) continue;
    const float step = rate * (tally.sums[i] / divisors[tally.counts[i]]);
    theta[i] = theta[i] - step;
    tally.sums[i] = 0;
    tally.counts[i] = 0;
  }
}

}  // namespace covenant::sparse
