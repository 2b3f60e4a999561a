// libFuzzer target: payloads of activations, and activations to encode. Whatever is accepted decodes
// to finite values, and every CPU path says and gives the same.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "covenant/activation.h"
#include "covenant/model.h"

namespace {

constexpr int32_t kRows = 3;
constexpr int32_t kWidths[] = {64, 1, 100, 131};

struct Shape {
  int32_t kind, width;
  uint64_t bytes = 0;
  Shape(int32_t wanted, int32_t wide) : kind(wanted), width(wide) {
    if (cov_activation_size(kind, kRows, width, &bytes).code != COV_OK) std::abort();
  }
  size_t values() const { return static_cast<size_t>(kRows) * static_cast<size_t>(width); }
};

template <typename T>
struct Outcome {
  int32_t code = 0;
  std::vector<T> out;
  bool operator==(const Outcome& other) const {
    return code == other.code &&
           (code != COV_OK || std::memcmp(out.data(), other.out.data(), out.size() * sizeof(T)) == 0);
  }
};

// What body(outcome) yields; it has to be the same on both paths.
template <typename T, typename Body>
Outcome<T> on_all_paths(size_t count, const Body& body) {
  Outcome<T> expected;
  for (const char* path : {"portable", "avx2"}) {
    if (cov_set_cpu_path(path).code != COV_OK) continue;
    Outcome<T> outcome{0, std::vector<T>(count)};
    outcome.code = body(outcome.out.data()).code;
    if (std::strcmp(path, "portable") == 0) expected = outcome;
    if (!(outcome == expected)) std::abort();
  }
  return expected;
}

Outcome<float> decode(const Shape& shape, const uint8_t* payload, uint64_t bytes) {
  const auto outcome = on_all_paths<float>(shape.values(), [&](float* values) {
    return cov_activation_decode(shape.kind, payload, bytes, kRows, shape.width, 1, values);
  });
  if (outcome.code != COV_OK) return outcome;
  for (const float value : outcome.out)
    if (!std::isfinite(value)) std::abort();
  return outcome;
}

Outcome<uint8_t> encode(const Shape& shape, const std::vector<float>& values) {
  return on_all_paths<uint8_t>(shape.bytes, [&](uint8_t* payload) {
    return cov_activation_encode(shape.kind, values.data(), kRows, shape.width, 1, payload,
                                 shape.bytes);
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const Shape shape(data[0] % 3, kWidths[data[0] >> 3 & 3]);
  // As it came, it may be anything.
  decode(shape, data, size);

  // The header and the size are given, so that the fuzzer spends its time behind them.
  std::vector<uint8_t> payload = encode(shape, std::vector<float>(shape.values())).out;
  std::memcpy(&payload[COV_ACTIVATION_HEADER_BYTES], data + 1,
              std::min<size_t>(size - 1, shape.bytes - COV_ACTIVATION_HEADER_BYTES));
  const auto decoded = decode(shape, payload.data(), shape.bytes);
  // bf16 has one code for each value.
  if (decoded.code == COV_OK && shape.kind == COV_ACTIVATION_BF16 &&
      encode(shape, decoded.out).out != payload)
    std::abort();

  // The same bytes as what a model computed, NaN and infinities among it.
  std::vector<float> values(shape.values(), 0.25f);
  std::memcpy(values.data(), data + 1, std::min(size - 1, values.size() * sizeof(float)));
  const auto encoded = encode(shape, values);
  const bool finite =
      std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
  if (encoded.code == COV_OK && !finite) std::abort();
  if (encoded.code == COV_OK && decode(shape, encoded.out.data(), shape.bytes).code != COV_OK)
    std::abort();
  return 0;
}
