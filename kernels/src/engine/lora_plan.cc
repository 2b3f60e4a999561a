#include "engine/lora_plan.h"

#include <algorithm>
#include <cmath>

#include "covenant/rng.h"
#include "engine/model.h"

namespace covenant {
namespace {

constexpr int32_t kRankMax = 1024;

}  // namespace

LoraPlan::LoraPlan(const Layout& l, const cov_lora_options& options, int64_t layers_before)
    : rank(options.rank), scale(options.alpha / static_cast<float>(options.rank)) {
  const int64_t query = l.attention.query_width(), kv = l.attention.kv_heads * l.attention.dim;
  struct Whole {
    int64_t offset, k;
    std::vector<int64_t> parts;  // rows of the matrices in it
  };
  for (int64_t layer = 0; layer < l.layers; ++layer) {
    const Whole wholes[] = {{l.qkv(layer), l.d, {query, kv, kv}},
                            {l.o(layer), l.d, {l.d}},
                            {l.gate_up(layer), l.d, {l.f, l.f}},
                            {l.down(layer), l.f, {l.d}}};
    int target = 0;
    for (const Whole& whole : wholes) {
      Group group = {whole.offset, 0, whole.k, adapters.size(), 0};
      for (const int64_t n : whole.parts) {
        const int64_t offset = whole.offset + group.n * whole.k;
        group.n += n;
        if ((options.targets >> target++ & 1) == 0) continue;
        const int64_t a = size, b = a + rank * whole.k;
        adapters.push_back({offset, n, whole.k, a, b});
        size = b + n * rank;
        ++group.count;
      }
      if (group.count > 0) groups.push_back(group);
    }
  }
  floats_before = size / l.layers * layers_before;
  adapters_before = static_cast<int64_t>(adapters.size()) / l.layers * layers_before;
}

int64_t LoraPlan::group_at(int64_t offset) const {
  const auto found =
      std::lower_bound(groups.begin(), groups.end(), offset,
                       [](const Group& group, int64_t at) { return group.offset < at; });
  return found == groups.end() || found->offset != offset ? -1 : found - groups.begin();
}

void LoraPlan::initialise(uint64_t seed, float* parameters) const {
  const uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  auto matrix = static_cast<uint32_t>(adapters_before);
  for (const Adapter& adapter : adapters) {
    const float bound = 1.0f / std::sqrt(static_cast<float>(adapter.k));
    for (int64_t i = 0; i < rank * adapter.k; ++i) {
      const uint32_t counter[4] = {static_cast<uint32_t>(i), matrix, 0x4c6f5241u, 0};
      uint32_t out[4];
      cov_philox4x32(key, counter, out);
      const float unit = static_cast<float>(out[0] >> 8) * (1.0f / 16777216.0f);
      parameters[adapter.a + i] = (2.0f * unit - 1.0f) * bound;
    }
    ++matrix;
  }
}

void check_lora_options(const cov_lora_options& options) {
  if (options.rank < 1 || options.rank > kRankMax)
    throw Failure{cov_error(COV_INVALID_ARGUMENT, "rank is %d, must be in [1, %d]", options.rank,
                            kRankMax)};
  if (!std::isfinite(options.alpha) || options.alpha == 0.0f)
    throw Failure{cov_error(COV_INVALID_ARGUMENT, "alpha must be finite and not 0")};
  if (options.targets < 1 || options.targets > 127)
    throw Failure{
        cov_error(COV_INVALID_ARGUMENT, "targets is %d, no set of matrices", options.targets)};
}

}  // namespace covenant
