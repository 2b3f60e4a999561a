// libFuzzer target: unpacking updates. Whatever is accepted is a valid body, and packing it gives the
// same bytes.
#include <cstdlib>
#include <cstring>

#include "fuzz/tables.h"
#include "sparse/layout.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const cov_sparse_format format{data[0] & 1 ? 2 : 1, data[0] & 2 ? 64 : 700};
  const auto tensors = covenant_fuzz::tables();
  const auto count = static_cast<int32_t>(tensors.size());
  uint64_t body_bytes = 0;
  if (cov_sparse_size(tensors.data(), count, format, &body_bytes, nullptr).code != COV_OK)
    std::abort();
  std::vector<uint8_t> body(body_bytes);

  // As it came, it may be anything.
  cov_sparse_unpack(data, size, tensors.data(), count, format, 1, body.data(), body_bytes);

  // Header, length of the only block and the zero that its code begins with are given, so that the
  // fuzzer spends its time behind them.
  std::vector<uint8_t> packed(17 + size - 1);
  std::memcpy(packed.data(), "CVP1", 4);
  packed[4] = static_cast<uint8_t>(format.mode);
  packed[5] = 1;
  covenant::sparse::store_u16(&packed[6], static_cast<uint16_t>(format.keep_per_chunk));
  covenant::sparse::store_u32(&packed[8], static_cast<uint32_t>(count));
  covenant::sparse::store_u32(&packed[12], static_cast<uint32_t>(size));
  if (size > 1) std::memcpy(&packed[17], data + 1, size - 1);
  if (cov_sparse_unpack(packed.data(), packed.size(), tensors.data(), count, format, 1, body.data(),
                        body_bytes)
          .code != COV_OK)
    return 0;
  uint64_t kept = 0;
  if (cov_sparse_check(body.data(), body_bytes, tensors.data(), count, format, &kept).code != COV_OK)
    std::abort();
  cov_bytes again{};
  const cov_status status =
      cov_sparse_pack(body.data(), body_bytes, tensors.data(), count, format, 1, &again);
  if (status.code != COV_OK || again.length != packed.size() ||
      std::memcmp(again.data, packed.data(), packed.size()) != 0)
    std::abort();
  cov_bytes_free(&again);
  return 0;
}
