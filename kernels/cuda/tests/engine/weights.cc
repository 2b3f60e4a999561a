// Weights of generation and replay on a device: with bf16 and int8, in models of either compute, the CPU's tokens,
// log-probs, fingerprints, tops and margins to the bit, whatever is computed together, adapters in use and merged
// included. Where memory is refused the model goes on.
#include <algorithm>
#include <memory>

#include "adapters.h"
#include "generated.h"

namespace {

using namespace covenant_test;

constexpr int32_t kNew = 9, kDims = 7, kTops = 3, kRequests = 4;
constexpr cov_fingerprint_options kFingerprint = {{4, 2}, kDims};

using Results = Generated<kRequests, kNew, kDims, kTops>;

cov_status generate(cov_model* model, const std::vector<cov_generate_request>& requests,
                    const cov_generate_options& options, Results& results) {
  return cov_model_generate(model, requests.data(), kRequests, &options, results.outputs.data());
}
cov_status generate(cov_device_model* model, const std::vector<cov_generate_request>& requests,
                    const cov_generate_options& options, Results& results) {
  return cov_device_model_generate(model, requests.data(), kRequests, &options, results.outputs.data());
}

// Prompts of which one alone has more rows than products of few rows take.
std::vector<cov_generate_request> requests_of(const std::vector<int32_t>& tokens) {
  static const int32_t stops[] = {5, 9, 30};
  return {{tokens.data(), 11, kNew, 1.0f, 0, 0.0f, nullptr, 0, {1, 2}},
          {tokens.data() + 3, 1, 4, 0.7f, 5, 0.9f, stops, 3, {7}},
          {tokens.data(), 70, kNew, 0.0f, 0, 0.0f, nullptr, 0, {}},
          {tokens.data() + 9, 6, kNew, 1.3f, 0, 0.8f, stops, 2, {9}}};
}

struct Replayed {
  std::vector<int32_t> drawn = std::vector<int32_t>(kRequests * kNew, -7);
  std::vector<float> margins = std::vector<float>(kRequests * kNew), log_probs = margins;
  std::vector<int8_t> fingerprints = std::vector<int8_t>(kRequests * kNew * kDims);
  std::vector<cov_replay_output> outputs;
  Replayed() {
    for (int32_t i = 0; i < kRequests; ++i)
      outputs.push_back({drawn.data() + i * kNew, margins.data() + i * kNew, log_probs.data() + i * kNew,
                         fingerprints.data() + i * kNew * kDims});
  }
  bool operator==(const Replayed& other) const {
    return drawn == other.drawn && fingerprints == other.fingerprints &&
           std::memcmp(margins.data(), other.margins.data(), margins.size() * sizeof(float)) == 0 &&
           std::memcmp(log_probs.data(), other.log_probs.data(), margins.size() * sizeof(float)) == 0;
  }
};

// Of what was generated.
std::vector<cov_replay_request> replays_of(const std::vector<cov_generate_request>& requests, const Results& results) {
  std::vector<cov_replay_request> replays;
  for (size_t i = 0; i < requests.size(); ++i) {
    const cov_generate_request& r = requests[i];
    const cov_generate_output& out = results.outputs[i];
    cov_replay_request replay = {r.prompt,      r.prompt_length, out.tokens, out.token_count,
                                 r.temperature, r.top_k,         r.top_p,    {}};
    std::copy_n(r.sampling_seed, 32, replay.sampling_seed);
    replays.push_back(replay);
  }
  return replays;
}

// Generation in batches, and replay of all and of one after the other.
void equals_cpu(cov_model* cpu, cov_device_model* gpu, const cov_model_shape& shape, int32_t weights) {
  const std::vector<int32_t> tokens = Numbers(3).tokens(80, shape.vocab_size);
  const std::vector<cov_generate_request> requests = requests_of(tokens);
  cov_generate_options options = {&kFingerprint, kTops, 0, nullptr, nullptr, nullptr, weights};
  Results expected;
  CHECK_OK(generate(cpu, requests, options, expected));
  for (const int32_t batch : {3, 0}) {
    options.max_batch = batch;
    Results found;
    CHECK_OK(generate(gpu, requests, options, found));
    check_same(found, expected);
  }
  const std::vector<cov_replay_request> replays = replays_of(requests, expected);
  const cov_replay_options replay = {&kFingerprint, nullptr, weights};
  Replayed claimed, all, one_by_one;
  CHECK_OK(cov_model_replay(cpu, replays.data(), kRequests, &replay, claimed.outputs.data()));
  CHECK_OK(cov_device_model_replay(gpu, replays.data(), kRequests, &replay, all.outputs.data()));
  CHECK(all == claimed);
  for (int32_t i = 0; i < kRequests; ++i)
    CHECK_OK(cov_device_model_replay(gpu, replays.data() + i, 1, &replay, one_by_one.outputs.data() + i));
  CHECK(one_by_one == claimed);
}

// The types that have the CPU's bits in a model of this compute.
void types(cov_device* device, const cov_model_shape& shape, int32_t compute) {
  const std::vector<float> parameters = lively_parameters(shape, 11);
  const TestModel cpu(shape, parameters);
  const DeviceModel gpu(device, shape, parameters, compute);
  if (compute == COV_COMPUTE_F32) equals_cpu(cpu, gpu, shape, COV_WEIGHTS_F32);
  equals_cpu(cpu, gpu, shape, COV_WEIGHTS_BF16);
  equals_cpu(cpu, gpu, shape, COV_WEIGHTS_INT8);
}

void adapters(cov_device* device, const cov_model_shape& shape, int32_t compute) {
  const std::vector<float> parameters = lively_parameters(shape, 11);
  const TestModel cpu(shape, parameters);
  const DeviceModel gpu(device, shape, parameters, compute);
  const cov_lora_options options = {3, 6.0f, COV_LORA_Q | COV_LORA_O | COV_LORA_UP | COV_LORA_DOWN, 17};
  const CpuAdapters own(cpu, options);
  const DeviceAdapters<cov_device_model> on_device(gpu, options, own.read(COV_PARAMETERS));
  for (const int32_t weights : {COV_WEIGHTS_BF16, COV_WEIGHTS_INT8}) equals_cpu(cpu, gpu, shape, weights);
  CHECK_OK(cov_lora_merge(own, 1));
  CHECK_OK(cov_device_lora_merge(on_device, 1));
  equals_cpu(cpu, gpu, shape, COV_WEIGHTS_INT8);
}

// With ever more memory left, generation is refused until there is enough; the model goes on each time.
void refused_memory(int32_t weights) {
  constexpr uint64_t kLimit = 64 << 20;
  const cov_model_shape shape = {37, 24, 20, 2, 4, 2, 128, 0, 10000.0, 1e-5};
  const std::vector<int32_t> tokens = Numbers(3).tokens(80, shape.vocab_size);
  const std::vector<cov_generate_request> requests = requests_of(tokens);
  const cov_generate_options options = {nullptr, 0, 0, nullptr, nullptr, nullptr, weights};
  const DevicePointer device = open_device(kLimit);
  const DeviceModel model(device.get(), shape, lively_parameters(shape, 11));
  Results expected;
  CHECK_OK(generate(model, requests, options, expected));
  int refusals = 0;
  for (uint64_t spare = 0;; spare += spare / 4 + 4096) {
    uint64_t used = 0, peak = 0;
    CHECK_OK(cov_device_memory(device.get(), &used, &peak));
    void* blocker = nullptr;
    CHECK_OK(cov_device_allocate(device.get(), kLimit - used - spare, &blocker));
    Results found;
    const cov_status status = generate(model, requests, options, found);
    cov_device_free(device.get(), blocker);
    if (status.code == COV_OK) {
      check_same(found, expected);
      break;
    }
    CHECK(status.code == COV_MEMORY_LIMIT);
    ++refusals;
    CHECK_OK(generate(model, requests, options, found));
  }
  CHECK(refusals > 1);
}

void refusals(cov_device* device) {
  const cov_model_shape shape = {37, 24, 20, 2, 4, 2, 128, 0, 10000.0, 1e-5};
  std::vector<float> parameters = lively_parameters(shape, 11);
  const std::vector<int32_t> tokens = Numbers(3).tokens(80, shape.vocab_size);
  const std::vector<cov_generate_request> requests = requests_of(tokens);
  parameters[static_cast<size_t>(shape.vocab_size * shape.hidden_size + 3)] = NAN;  // of the first layer
  const DeviceModel model(device, shape, parameters);
  Results none;
  for (const int32_t weights : {COV_WEIGHTS_BF16, COV_WEIGHTS_INT8}) {
    const cov_generate_options options = {nullptr, 0, 0, nullptr, nullptr, nullptr, weights};
    CHECK_CODE(generate(model, requests, options, none), COV_NON_FINITE);
    CHECK(none.outputs[0].token_count == 0);
  }
  for (const int32_t weights : {-1, 3}) {
    const cov_generate_options options = {nullptr, 0, 0, nullptr, nullptr, nullptr, weights};
    CHECK_CODE(generate(model, requests, options, none), COV_INVALID_ARGUMENT);
    const cov_replay_options replay = {nullptr, nullptr, weights};
    CHECK_CODE(cov_device_model_replay(model, nullptr, 0, &replay, nullptr), COV_INVALID_ARGUMENT);
  }
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer device = open_device();
  // GQA with a head of its own; tied and of no multiples of anything; one kv head for all, sizes for wide copies.
  const cov_model_shape shapes[] = {{37, 24, 20, 2, 4, 2, 128, 0, 10000.0, 1e-5},
                                    {41, 18, 31, 2, 3, 1, 128, 1, 10000.0, 1e-5},
                                    {83, 64, 96, 1, 2, 1, 128, 1, 500.0, 1e-6}};
  types(device.get(), shapes[0], COV_COMPUTE_F32);
  if (!kSanitized) {
    types(device.get(), shapes[1], COV_COMPUTE_F32);
    types(device.get(), shapes[2], COV_COMPUTE_BF16);
    adapters(device.get(), shapes[0], COV_COMPUTE_F32);
  }
  adapters(device.get(), shapes[1], COV_COMPUTE_BF16);
  for (const int32_t weights : {COV_WEIGHTS_F32, COV_WEIGHTS_INT8}) refused_memory(weights);
  refusals(device.get());
  TEST_MAIN_END("cuda weights");
}
