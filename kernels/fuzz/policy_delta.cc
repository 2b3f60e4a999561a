// libFuzzer target: policy deltas. The first byte chooses between the whole format, with roots that
// the fuzzer need not guess, and the code of a chunk alone.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "covenant/delta.h"

namespace {

constexpr uint64_t kWeights = 3000;

std::vector<uint16_t> base_weights() {
  std::vector<uint16_t> weights(kWeights);
  uint32_t x = 12345;
  for (uint16_t& weight : weights) {
    x = x * 1664525 + 1013904223;
    weight = static_cast<uint16_t>(x >> 31 << 15 | (0x3b00 + (x >> 20 & 0x3ff)));
  }
  return weights;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  static const std::vector<uint16_t> base = base_weights();
  std::vector<uint16_t> next(kWeights);
  if (data[0] & 1) {
    uint64_t changed = 0;
    const cov_status status = cov_delta_apply_chunk(base.data(), kWeights, 0, data + 1, size - 1,
                                                    data[0] >> 1 & 1, next.data(), &changed);
    if (status.code != COV_OK) return 0;
    uint64_t counted = 0;
    for (uint64_t i = 0; i < kWeights; ++i) counted += next[i] != base[i];
    if (counted != changed) std::abort();
    return 0;
  }
  std::vector<uint8_t> delta(data + 1, data + size);
  if (delta.size() >= COV_DELTA_HEADER_BYTES) {
    std::memcpy(delta.data(), "CVD1", 4);
    if (cov_delta_root(base.data(), kWeights, 1, &delta[20]).code != COV_OK) std::abort();
  }
  cov_delta_info info;
  const cov_status read = cov_delta_read(delta.data(), delta.size(), &info);
  const cov_status status =
      cov_delta_apply(base.data(), kWeights, delta.data(), delta.size(), 1, next.data());
  if (read.code != COV_OK && status.code == COV_OK) std::abort();
  return 0;
}
