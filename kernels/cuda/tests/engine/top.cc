// The most probable tokens on the device against the CPU's: many equal logits, both zeros, infinities, vocabularies
// around the block's size, all counts from one to all. NaN is never written outside.
#include <cmath>
#include <limits>

#include "check.h"
#include "device_test.h"
#include "engine/buffers.h"
#include "engine/head.h"
#include "engine/support.h"
#include "engine/top.cuh"

namespace {

using namespace covenant::cuda;
using namespace covenant_test;

constexpr int64_t kRows = 3;

struct Tops {
  std::vector<int32_t> tokens;
  std::vector<float> log_probs;
};

Tops on_device_of(Device& device, const std::vector<float>& logits, int64_t vocab, int32_t count,
                  float inverse_temperature, const std::vector<double>& log_sums) {
  const Buffer<float> z = on_device(device, logits);
  const Buffer<double> sums = on_device(device, log_sums);
  // A guard behind the results.
  const auto size = static_cast<size_t>(kRows * count + 16);
  const Buffer<int32_t> tokens = on_device(device, std::vector<int32_t>(size, -7));
  const Buffer<float> log_probs = on_device(device, std::vector<float>(size, -7.0f));
  top_tokens(device.stream(), {kRows, vocab, count, inverse_temperature, sums.data(),
                               const_cast<int32_t*>(tokens.data()), const_cast<float*>(log_probs.data())},
             z.data());
  Tops found = {from_device(device, tokens), from_device(device, log_probs)};
  for (size_t i = size - 16; i < size; ++i) CHECK(found.tokens[i] == -7 && found.log_probs[i] == -7.0f);
  found.tokens.resize(size - 16);
  found.log_probs.resize(size - 16);
  return found;
}

void check_case(Device& device, const std::vector<float>& logits, int64_t vocab, int32_t count,
                float inverse_temperature) {
  const std::vector<double> log_sums = {0.25, -3.5, 17.0};
  const Tops found = on_device_of(device, logits, vocab, count, inverse_temperature, log_sums);
  std::vector<int32_t> order(static_cast<size_t>(vocab)), tokens(static_cast<size_t>(count));
  std::vector<float> log_probs(tokens.size());
  for (int64_t row = 0; row < kRows; ++row) {
    covenant::top_log_probs(logits.data() + row * vocab, vocab, log_sums[static_cast<size_t>(row)],
                            inverse_temperature, count, order, tokens.data(), log_probs.data());
    for (int32_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(row * count + i);
      CHECK(found.tokens[at] == tokens[static_cast<size_t>(i)]);
      CHECK(found.log_probs[at] == log_probs[static_cast<size_t>(i)]);
    }
  }
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  Device device(0, 0);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const int64_t vocab : {1, 7, 255, 256, 257, 1000, 5003}) {
    Numbers numbers(static_cast<uint32_t>(vocab));
    const std::vector<float> spread = numbers.floats(kRows * vocab);
    // Few values, so that ties are at every edge.
    std::vector<float> ties;
    for (int64_t i = 0; i < kRows * vocab; ++i)
      ties.push_back(std::vector<float>{0.0f, -0.0f, 1.5f, -1.5f, -kInf, 1.5f}[numbers.below(6)]);
    const auto all = static_cast<int32_t>(std::min<int64_t>(vocab, kTopMax));
    for (const int32_t count : {1, 2, 20, 255, 256}) {
      if (count > all) continue;
      check_case(device, spread, vocab, count, 0.7f);
      check_case(device, ties, vocab, count, 1.0f);
    }
    check_case(device, spread, vocab, all, 1.0f);
    check_case(device, ties, vocab, all, 2.0f);
    check_case(device, std::vector<float>(static_cast<size_t>(kRows * vocab), -2.0f), vocab, all, 1.0f);
    const std::vector<float> nothing(static_cast<size_t>(kRows * vocab), NAN);
    (void)on_device_of(device, nothing, vocab, all, 1.0f, {0.0, 0.0, 0.0});
  }
  return 0;
}
