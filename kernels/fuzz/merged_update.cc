// libFuzzer target: the decoder of merged updates.
#include <cstdlib>
#include <cstring>

#include "fuzz/tables.h"
#include "sparse/body.h"

namespace {

void decode(const uint8_t* data, size_t size) {
  const auto tensors = covenant_fuzz::tables();
  const auto count = static_cast<int32_t>(tensors.size());
  std::vector<float> parameters(tensors.back().offset + tensors.back().length);
  std::vector<int32_t> skipped(tensors.size());
  int32_t skipped_count = 0;
  uint64_t kept = 0;
  const cov_status checked = cov_merged_check(data, size, tensors.data(), count, &kept);
  const cov_status applied =
      cov_merged_apply(parameters.data(), parameters.size(), data, size, tensors.data(), count,
                       1.0f, skipped.data(), &skipped_count);
  if (checked.code != applied.code) std::abort();
  if (checked.code == COV_OK && kept > parameters.size()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // As it came, it may be anything. With the fixed header in front, time is spent behind it.
  decode(data, size);
  std::vector<uint8_t> merged(12 + size);
  std::memcpy(merged.data(), "CVM1", 4);
  covenant::sparse::store_u16(&merged[6], 3);
  covenant::sparse::store_u32(&merged[8], 5);
  if (size > 0) std::memcpy(&merged[12], data, size);
  decode(merged.data(), merged.size());
  return 0;
}
