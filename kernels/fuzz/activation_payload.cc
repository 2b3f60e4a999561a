// libFuzzer target: payloads of activations. Whatever is accepted decodes to finite values.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "covenant/activation.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  constexpr int32_t kRows = 3;
  const int32_t kind = data[0] % 3;
  const int32_t width = data[0] & 8 ? 100 : 64;
  uint64_t bytes = 0;
  if (cov_activation_size(kind, kRows, width, &bytes).code != COV_OK) std::abort();
  std::vector<float> values(static_cast<size_t>(kRows * width));
  // As it came, it may be anything.
  cov_activation_decode(kind, data, size, kRows, width, 1, values.data());

  // The header and the size are given, so that the fuzzer spends its time behind them.
  std::vector<uint8_t> payload(bytes);
  if (cov_activation_encode(kind, std::vector<float>(values.size()).data(), kRows, width, 1,
                            payload.data(), bytes)
          .code != COV_OK)
    std::abort();
  std::memcpy(&payload[COV_ACTIVATION_HEADER_BYTES], data + 1,
              std::min<size_t>(size - 1, bytes - COV_ACTIVATION_HEADER_BYTES));
  if (cov_activation_decode(kind, payload.data(), bytes, kRows, width, 1, values.data()).code !=
      COV_OK)
    return 0;
  for (const float value : values)
    if (!std::isfinite(value)) std::abort();
  return 0;
}
