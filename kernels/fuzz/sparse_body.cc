// libFuzzer target: the decoder of update bodies. Whatever is accepted must be finite, ascending
// and canonical.
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "fuzz/tables.h"
#include "sparse/body.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const cov_sparse_format format{data[0] & 1 ? 2 : 1, data[0] & 2 ? 64 : 700};
  const auto tensors = covenant_fuzz::tables();
  const auto count = static_cast<int32_t>(tensors.size());
  // The fixed header and the size are given, so that the fuzzer spends its time behind them.
  uint64_t bytes = 0;
  if (cov_sparse_size(tensors.data(), count, format, &bytes, nullptr).code != COV_OK) std::abort();
  std::vector<uint8_t> body(bytes);
  std::memcpy(body.data(), "CVS1", 4);
  body[4] = static_cast<uint8_t>(format.mode);
  body[5] = 1;
  covenant::sparse::store_u16(&body[6], static_cast<uint16_t>(format.keep_per_chunk));
  covenant::sparse::store_u32(&body[8], static_cast<uint32_t>(count));
  if (size > 1) std::memcpy(&body[12], data + 1, std::min<size_t>(size - 1, body.size() - 12));

  // As it came, it may be anything.
  cov_sparse_check(data, size, tensors.data(), count, format, nullptr);

  uint64_t kept = 0;
  if (cov_sparse_check(body.data(), bytes, tensors.data(), count, format, &kept).code != COV_OK)
    return 0;
  std::vector<uint32_t> indices(kept + 1);
  std::vector<float> values(kept + 1);
  uint64_t written = 0;
  const cov_status status = cov_sparse_decode(body.data(), bytes, tensors.data(), count, format,
                                              indices.data(), values.data(), kept, &written);
  if (status.code != COV_OK || written != kept) std::abort();
  for (uint64_t j = 0; j < kept; ++j) {
    if (!std::isfinite(values[j]) || values[j] == 0) std::abort();
    if (j > 0 && indices[j] <= indices[j - 1]) std::abort();
  }
  return 0;
}
