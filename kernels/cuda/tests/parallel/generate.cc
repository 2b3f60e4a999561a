// Generation and replay on several devices: the bits of one, however requests are spread over replicas and layers
// over stages; cancelling, and faults of one device.
#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "../engine/adapters.h"
#include "support.h"

namespace {

using namespace covenant_test;

constexpr cov_model_shape kUntied = {37, 24, 20, 3, 4, 2, 64, 0, 10000.0, 1e-5};
constexpr cov_model_shape kTied = {37, 24, 20, 3, 4, 2, 64, 1, 10000.0, 1e-5};
constexpr int32_t kVocab = 37;
constexpr int32_t kRequests = 7, kNew = 9;

struct Requests {
  std::vector<int32_t> prompts = Numbers(3).tokens(40, kVocab);
  std::vector<cov_generate_request> list;
  Requests() {
    for (int32_t i = 0; i < kRequests; ++i)
      list.push_back({prompts.data() + i, 1 + 4 * i % 9, kNew - i % 4, i == 2 ? 0.0f : 0.9f, 0, 0.0f, nullptr, 0,
                      {static_cast<uint8_t>(i)}});
  }
};

struct Told {
  std::atomic<int32_t> inside{0};
  int32_t most = 0;
  std::vector<std::vector<int32_t>> tokens = std::vector<std::vector<int32_t>>(kRequests);
  static void tell(void* context, int32_t request, int32_t index, int32_t token, float) {
    Told& told = *static_cast<Told*>(context);
    told.most = std::max(told.most, ++told.inside);
    std::vector<int32_t>& list = told.tokens[static_cast<size_t>(request)];
    CHECK(index == static_cast<int32_t>(list.size()));
    list.push_back(token);
    --told.inside;
  }
};

struct Results {
  std::vector<int32_t> tokens = std::vector<int32_t>(kRequests * kNew, -7);
  std::vector<float> log_probs = std::vector<float>(kRequests * kNew);
  std::vector<cov_generate_output> outputs;
  Told told;
  cov_generate_options options = {nullptr, 0, 3, Told::tell, &told, nullptr, 0};
  Results() {
    for (int32_t i = 0; i < kRequests; ++i)
      outputs.push_back({tokens.data() + i * kNew, log_probs.data() + i * kNew, nullptr, nullptr, nullptr, 0, 0});
  }
  Results(const Results&) = delete;
  Results& operator=(const Results&) = delete;
};

void check_same(const Results& a, const Results& b) {
  CHECK(a.tokens == b.tokens && a.told.tokens == b.told.tokens && a.told.most == 1);
  CHECK_SAME(a.log_probs.data(), b.log_probs.data(), a.log_probs.size() * sizeof(float));
  for (size_t i = 0; i < kRequests; ++i) CHECK(a.outputs[i].token_count == b.outputs[i].token_count);
}

const Requests& requests() {
  static const Requests all;
  return all;
}

cov_status generate(cov_parallel_model* model, Results& results, int32_t count = kRequests) {
  return cov_parallel_model_generate(model, requests().list.data(), count, &results.options,
                                     results.outputs.data());
}

// What generation reported, drawn again.
template <typename Replay>
void check_replay(const Results& results, int32_t weights, const Replay& replay) {
  std::vector<cov_replay_request> list;
  std::vector<cov_replay_output> outputs;
  std::vector<int32_t> drawn(kRequests * kNew);
  std::vector<float> log_probs(kRequests * kNew);
  for (int32_t i = 0; i < kRequests; ++i) {
    const cov_generate_request& r = requests().list[static_cast<size_t>(i)];
    list.push_back({r.prompt, r.prompt_length, results.tokens.data() + i * kNew, r.max_new_tokens, r.temperature,
                    r.top_k, r.top_p, {}});
    std::copy_n(r.sampling_seed, 32, list.back().sampling_seed);
    outputs.push_back({drawn.data() + i * kNew, nullptr, log_probs.data() + i * kNew, nullptr});
  }
  const cov_replay_options options = {.fingerprint = nullptr, .cancel = nullptr, .weights = weights};
  CHECK_OK(replay(list.data(), kRequests, &options, outputs.data()));
  for (int32_t i = 0; i < kRequests; ++i) {
    const auto count = static_cast<size_t>(requests().list[static_cast<size_t>(i)].max_new_tokens);
    CHECK_SAME(drawn.data() + i * kNew, results.tokens.data() + i * kNew, count * sizeof(int32_t));
    CHECK_SAME(log_probs.data() + i * kNew, results.log_probs.data() + i * kNew, count * sizeof(float));
  }
}

// By type of weights: on the CPU, but for those of a bf16 model, which are from one device.
struct Expected {
  Results of[3];
  Expected(const cov_model_shape& shape, int32_t compute) {
    const std::vector<float> parameters = lively_parameters(shape, 11);
    const TestModel cpu(shape, parameters);
    const DevicePointer device = open_device();
    const DeviceModel one(device.get(), shape, parameters, compute);
    for (int32_t weights = 0; weights < 3; ++weights) {
      Results& results = of[weights];
      results.options.weights = weights;
      const cov_generate_request* const list = requests().list.data();
      if (weights == COV_WEIGHTS_F32 && compute == COV_COMPUTE_BF16)
        CHECK_OK(cov_device_model_generate(one, list, kRequests, &results.options, results.outputs.data()));
      else
        CHECK_OK(cov_model_generate(cpu, list, kRequests, &results.options, results.outputs.data()));
    }
  }
};

void layouts(int32_t devices, int32_t stages, const cov_model_shape& shape, int32_t compute,
             const Expected& all) {
  const ParallelModel model(devices, shape, lively_parameters(shape, 11), {stages, compute, 0, 0});
  const Results& expected = all.of[COV_WEIGHTS_F32];
  Results few;
  for (int32_t weights = 0; weights < 3; ++weights) {
    Results results;
    results.options.weights = weights;
    CHECK_OK(generate(model, results));
    check_same(results, all.of[weights]);
    check_replay(results, weights,
                 [&](auto... arguments) { return cov_parallel_model_replay(model, arguments...); });
  }
  // Fewer requests than replicas, and none.
  CHECK_OK(generate(model, few, 1));
  CHECK(few.told.tokens[0] == expected.told.tokens[0]);
  CHECK_OK(generate(model, few, 0));
  // With adapters the tokens are others, and theirs again without.
  const cov_lora_options options = {3, 6.0f, 127, 17};
  const DeviceAdapters<cov_parallel_model> adapters(model, options, Numbers(41).floats(2700, 0.2f));
  Results adapted, again;
  CHECK_OK(generate(model, adapted));
  CHECK(adapted.log_probs != expected.log_probs);
  CHECK_OK(cov_parallel_model_use_lora(model, nullptr));
  CHECK_OK(generate(model, again));
  check_same(again, expected);
}

void faults(int32_t devices, int32_t stages) {
  std::vector<float> parameters = lively_parameters(kUntied, 11);
  const ParallelModel model(devices, kUntied, parameters, {stages, COV_COMPUTE_F32, 0, 0});
  Results results;
  const int32_t cancel = 1;
  results.options.cancel = &cancel;
  CHECK_CODE(generate(model, results), COV_CANCELLED);
  results.options.cancel = nullptr;
  results.options.weights = 3;
  CHECK_CODE(generate(model, results), COV_INVALID_ARGUMENT);
  results.options.weights = COV_WEIGHTS_F32;
  CHECK_CODE(generate(nullptr, results), COV_INVALID_ARGUMENT);
  if (std::getenv("COVENANT_EMULATED_DEVICES") != nullptr) {
    setenv("COVENANT_EMULATION_FAULT", "1:60", 1);
    Results broken;
    CHECK_CODE(generate(model, broken), COV_INTERNAL);
    unsetenv("COVENANT_EMULATION_FAULT");
    Results after;
    CHECK_OK(generate(model, after));
  }
  parameters.back() = NAN;  // of the final norm
  CHECK_OK(cov_parallel_model_write(model, COV_PARAMETERS, 0, parameters.size(), parameters.data()));
  CHECK_CODE(generate(model, results), COV_NON_FINITE);
}

// A long prompt and a long completion go through the stages in pieces.
void pieces(int32_t stages) {
  const cov_model_shape shape = {37, 12, 10, 3, 2, 1, 1024, 1, 10000.0, 1e-5};
  const std::vector<float> parameters = lively_parameters(shape, 5);
  const std::vector<int32_t> tokens = Numbers(8).tokens(700, kVocab);
  const TestModel cpu(shape, parameters);
  const ParallelModel model(stages, shape, parameters, {stages, COV_COMPUTE_F32, 0, 0});
  std::vector<int32_t> drawn[2];
  std::vector<float> log_probs[2];
  for (const int which : {0, 1}) {
    drawn[which].resize(400);
    log_probs[which].resize(402);
    int32_t next[2] = {};
    cov_generate_request request = {tokens.data(), 600, 2, 0.8f, 0, 0.0f, nullptr, 0, {7}};
    cov_generate_output output = {next, log_probs[which].data() + 400, nullptr, nullptr, nullptr, 0, 0};
    const cov_generate_options options = {};
    const cov_replay_request replayed = {tokens.data(), 300, tokens.data() + 300, 400, 0.8f, 0, 0.0f, {9}};
    const cov_replay_output replay_output = {drawn[which].data(), nullptr, log_probs[which].data(), nullptr};
    const cov_replay_options replay_options = {};
    if (which == 0) {
      CHECK_OK(cov_model_generate(cpu, &request, 1, &options, &output));
      CHECK_OK(cov_model_replay(cpu, &replayed, 1, &replay_options, &replay_output));
    } else {
      CHECK_OK(cov_parallel_model_generate(model, &request, 1, &options, &output));
      CHECK_OK(cov_parallel_model_replay(model, &replayed, 1, &replay_options, &replay_output));
    }
    drawn[which].insert(drawn[which].end(), next, next + 2);
  }
  CHECK(drawn[0] == drawn[1]);
  CHECK_SAME(log_probs[0].data(), log_probs[1].data(), log_probs[0].size() * sizeof(float));
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const struct {
    int32_t devices, stages;
    bool tied;
  } cases[] = {{1, 1, false}, {2, 1, false}, {3, 1, false}, {2, 2, false}, {2, 2, true}, {3, 3, true}, {4, 2, true}};
  for (const int32_t compute : {COV_COMPUTE_F32, COV_COMPUTE_BF16}) {
    const Expected untied(kUntied, compute), tied(kTied, compute);
    for (const auto& c : cases) {
      if (c.devices > cov_device_count() || (kSanitized && c.devices < 3)) continue;
      layouts(c.devices, c.stages, c.tied ? kTied : kUntied, compute, c.tied ? tied : untied);
    }
  }
  if (cov_device_count() < 2) return kSkipped;
  for (const int32_t stages : {1, 2}) faults(2, stages);
  pieces(2);
  if (cov_device_count() > 2) pieces(3);
  TEST_MAIN_END("cuda parallel generate");
}
