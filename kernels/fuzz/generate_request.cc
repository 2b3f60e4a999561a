// libFuzzer target: requests of strangers to generate and to replay. Any field may be anything: it is
// refused with a code, or tokens of the vocabulary come out and a replay draws the same ones.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "fuzz/model.h"

namespace {

constexpr int32_t kVocab = 19, kNewMost = 40;
constexpr cov_model_shape kShape = {kVocab, 8, 12, 1, 2, 1, 48, 1, 10000.0, 1e-5};

// Takes fields off the input; zeros when it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  template <typename T>
  T take() {
    T value{};
    const size_t count = std::min(sizeof value, size_);
    std::memcpy(&value, data_, count);
    data_ += count;
    size_ -= count;
    return value;
  }
  // Small most of the time, as the fuzzer would rarely find a length that is valid.
  int32_t number(int32_t usual) {
    const auto kind = take<uint8_t>();
    return kind < 224 ? kind % usual : take<int32_t>();
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

void replay(cov_model* model, const cov_generate_request& request, const cov_generate_output& said,
            const cov_generate_options& options) {
  if (said.token_count < 1) return;
  cov_replay_request again = {request.prompt, request.prompt_length, said.tokens, said.token_count,
                              request.temperature, request.top_k, request.top_p, {}};
  std::memcpy(again.sampling_seed, request.sampling_seed, sizeof again.sampling_seed);
  std::vector<int32_t> drawn(static_cast<size_t>(said.token_count), -1);
  std::vector<float> log_probs(drawn.size());
  const cov_replay_output output = {drawn.data(), nullptr, log_probs.data(), nullptr};
  const cov_replay_options how = {options.fingerprint, nullptr, options.weights};
  if (cov_model_replay(model, &again, 1, &how, &output).code != COV_OK) std::abort();
  if (!std::equal(drawn.begin(), drawn.end(), said.tokens)) std::abort();
  if (std::memcmp(log_probs.data(), said.log_probs, log_probs.size() * sizeof(float)) != 0)
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static cov_model* const model = covenant_fuzz::create(kShape);
  Input input(data, size);
  std::vector<int32_t> prompt(64), stops(64), tokens(kNewMost, -7);
  std::vector<float> log_probs(kNewMost);
  cov_generate_request request = {};
  request.prompt_length = input.number(8);
  // Memory is the caller's word: lengths beyond it are only asked for where they are refused.
  if (request.prompt_length > 64) request.prompt_length = 64;
  for (int32_t i = 0; i < request.prompt_length; ++i)
    prompt[static_cast<size_t>(i)] = input.number(kVocab);
  request.prompt = input.take<uint8_t>() == 255 ? nullptr : prompt.data();
  request.max_new_tokens = input.number(kNewMost);
  if (request.max_new_tokens > kNewMost && request.max_new_tokens <= kShape.max_positions)
    request.max_new_tokens = kNewMost;
  request.temperature = input.take<float>();
  request.top_k = input.number(kVocab + 3);
  request.top_p = input.take<float>();
  request.stop_token_count = input.number(3);
  for (int32_t& stop : stops) stop = input.take<int8_t>();
  request.stop_tokens = stops.data();
  for (uint8_t& byte : request.sampling_seed) byte = input.take<uint8_t>();
  cov_fingerprint_options fingerprint = {{1}, input.number(5)};
  std::vector<int8_t> prints(64 * kNewMost);
  cov_generate_options options = {};
  options.fingerprint = input.take<uint8_t>() & 1 ? &fingerprint : nullptr;
  options.max_batch = input.number(3);
  options.weights = input.number(3);
  cov_generate_output output = {};
  output.tokens = tokens.data();
  output.log_probs = log_probs.data();
  output.fingerprints = prints.data();
  const cov_status status = cov_model_generate(model, &request, 1, &options, &output);
  if (std::strcmp(cov_code_name(status.code), "INTERNAL") == 0) std::abort();
  if (status.code != COV_OK) {
    if (status.message[0] == '\0') std::abort();
    return 0;
  }
  if (output.token_count < 1 || output.token_count > request.max_new_tokens) std::abort();
  for (int32_t i = 0; i < output.token_count; ++i) {
    const auto at = static_cast<size_t>(i);
    if (tokens[at] < 0 || tokens[at] >= kVocab) std::abort();
    if (!(log_probs[at] <= 0) || !std::isfinite(log_probs[at])) std::abort();
  }
  replay(model, request, output, options);
  return 0;
}
