// Replay on the device: in fp32 the CPU's outputs, whatever is computed together; in bf16 what
// generation on the device reported.
#include <functional>

#include "support.h"

namespace {

using namespace covenant_test;

constexpr int32_t kDims = 5;

struct Job {
  std::vector<int32_t> tokens;  // prompt, then completion
  int32_t prompt_length;
  float temperature;
  int32_t top_k;
  float top_p;
  int32_t completion_length() const { return static_cast<int32_t>(tokens.size()) - prompt_length; }
};

struct Results {
  std::vector<std::vector<int32_t>> drawn;
  std::vector<std::vector<float>> margins, log_probs;
  std::vector<std::vector<int8_t>> fingerprints;
  std::vector<cov_replay_output> outputs;
  explicit Results(const std::vector<Job>& jobs) {
    for (const Job& job : jobs) {
      const auto n = static_cast<size_t>(job.completion_length());
      drawn.emplace_back(n, -7);
      margins.emplace_back(n, -7.0f);
      log_probs.emplace_back(n, 7.0f);
      fingerprints.emplace_back(n * kDims, int8_t{-128});
    }
    for (size_t i = 0; i < jobs.size(); ++i)
      outputs.push_back({drawn[i].data(), margins[i].data(), log_probs[i].data(),
                         fingerprints[i].data()});
  }
  bool operator==(const Results& other) const {
    for (size_t i = 0; i < drawn.size(); ++i)
      if (std::memcmp(margins[i].data(), other.margins[i].data(), 4 * margins[i].size()) != 0 ||
          std::memcmp(log_probs[i].data(), other.log_probs[i].data(), 4 * margins[i].size()) != 0)
        return false;
    return drawn == other.drawn && fingerprints == other.fingerprints;
  }
};

std::vector<cov_replay_request> requests_of(const std::vector<Job>& jobs) {
  std::vector<cov_replay_request> requests;
  for (const Job& job : jobs)
    requests.push_back({job.tokens.data(), job.prompt_length, job.tokens.data() + job.prompt_length,
                        job.completion_length(), job.temperature, job.top_k, job.top_p, {3, 1}});
  return requests;
}

const cov_fingerprint_options kFingerprint = {{4, 2}, kDims};

void equals_cpu(cov_device* device, const cov_model_shape& shape,
                const std::vector<float>& parameters, const std::vector<Job>& jobs) {
  const cov_replay_options options = {&kFingerprint, nullptr, 0};
  const auto requests = requests_of(jobs);
  const TestModel model(shape, parameters);
  const DeviceModel gpu(device, shape, parameters);
  Results cpu(jobs), all(jobs), one_by_one(jobs);
  const auto count = static_cast<int32_t>(jobs.size());
  CHECK_OK(cov_model_replay(model, requests.data(), count, &options, cpu.outputs.data()));
  CHECK_OK(cov_device_model_replay(gpu, requests.data(), count, &options, all.outputs.data()));
  CHECK(all == cpu);
  for (int32_t i = 0; i < count; ++i)
    CHECK_OK(cov_device_model_replay(gpu, requests.data() + i, 1, &options,
                                     one_by_one.outputs.data() + i));
  CHECK(one_by_one == cpu);
  // Nothing but log-probs, and no fingerprints.
  const cov_replay_options bare = {nullptr, nullptr, 0};
  Results some(jobs);
  for (cov_replay_output& out : some.outputs) out = {nullptr, nullptr, out.log_probs, nullptr};
  CHECK_OK(cov_device_model_replay(gpu, requests.data(), count, &bare, some.outputs.data()));
  CHECK(some.log_probs == cpu.log_probs);
}

// What generation reports in bf16 is found again.
void equals_generation(cov_device* device, const cov_model_shape& shape,
                       const std::vector<float>& parameters) {
  constexpr int32_t kNew = 8;
  const DeviceModel model(device, shape, parameters, COV_COMPUTE_BF16);
  const std::vector<int32_t> prompt = {1, 5, 2, 9, 11};
  std::vector<int32_t> tokens(kNew);
  std::vector<float> log_probs(kNew);
  std::vector<int8_t> fingerprints(kNew * kDims);
  const cov_generate_request request = {prompt.data(), 5, kNew, 0.9f, 0, 0.9f, nullptr, 0, {3, 1}};
  cov_generate_output output = {tokens.data(), log_probs.data(), fingerprints.data(), nullptr,
                                nullptr, 0, 0};
  const cov_generate_options options = {&kFingerprint, 0, 0, nullptr, nullptr, nullptr, 0};
  CHECK_OK(cov_device_model_generate(model, &request, 1, &options, &output));
  Job job = {prompt, 5, 0.9f, 0, 0.9f};
  job.tokens.insert(job.tokens.end(), tokens.begin(), tokens.end());
  const std::vector<Job> jobs = {job};
  Results results(jobs);
  const cov_replay_options replay = {&kFingerprint, nullptr, 0};
  CHECK_OK(cov_device_model_replay(model, requests_of(jobs).data(), 1, &replay,
                                   results.outputs.data()));
  CHECK(results.drawn[0] == tokens);
  CHECK(results.log_probs[0] == log_probs);
  CHECK(results.fingerprints[0] == fingerprints);
}

void refusals(cov_device* device, const cov_model_shape& shape,
              const std::vector<float>& parameters, const std::vector<Job>& jobs) {
  const DeviceModel model(device, shape, parameters);
  Results results(jobs);
  const auto code = [&](const std::function<void(cov_replay_request&, cov_replay_options&)>& edit) {
    auto requests = requests_of(jobs);
    cov_replay_options options = {&kFingerprint, nullptr, 0};
    edit(requests[0], options);
    return cov_device_model_replay(model, requests.data(), 1, &options, results.outputs.data()).code;
  };
  const int32_t cancel = 1, foreign = shape.vocab_size;
  CHECK(code([](auto&, auto&) {}) == COV_OK);
  CHECK(code([&](auto&, auto& o) { o.cancel = &cancel; }) == COV_CANCELLED);
  CHECK(code([](auto&, auto& o) { o.weights = COV_WEIGHTS_INT8; }) == COV_OK);
  CHECK(code([](auto&, auto& o) { o.weights = 9; }) == COV_INVALID_ARGUMENT);
  CHECK(code([](auto& r, auto&) { r.completion_length = 0; }) == COV_INVALID_ARGUMENT);
  CHECK(code([](auto& r, auto&) { r.completion_length = 99999; }) == COV_OUT_OF_RANGE);
  CHECK(code([](auto& r, auto&) { r.temperature = -1; }) == COV_INVALID_ARGUMENT);
  CHECK(code([&](auto& r, auto&) {
          r.completion = &foreign;
          r.completion_length = 1;
        }) == COV_OUT_OF_RANGE);
  const cov_replay_options options = {nullptr, nullptr, 0};
  CHECK_OK(cov_device_model_replay(model, nullptr, 0, &options, nullptr));
  const std::vector<float> broken(parameters.size(), NAN);
  const DeviceModel bad(device, shape, broken);
  CHECK_CODE(cov_device_model_replay(bad, requests_of(jobs).data(), 1, &options,
                                     results.outputs.data()),
             COV_NON_FINITE);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer device = open_device();
  const cov_model_shape shape = {37, 24, 20, 2, 4, 2, 64, 0, 10000.0, 1e-5};
  const std::vector<float> parameters = lively_parameters(shape, 11);
  Numbers numbers(3);
  const std::vector<Job> jobs = {{numbers.tokens(20, shape.vocab_size), 7, 1.0f, 0, 0.0f},
                                 {numbers.tokens(2, shape.vocab_size), 1, 0.7f, 5, 0.9f},
                                 {numbers.tokens(64, shape.vocab_size), 60, 0.0f, 0, 0.0f},
                                 {numbers.tokens(33, shape.vocab_size), 1, 1.3f, 0, 0.8f}};
  equals_cpu(device.get(), shape, parameters, jobs);
  // More rows than are computed together, in one request and in several.
  const cov_model_shape tiny = {7, 2, 1, 1, 1, 1, 3000, 1, 10000.0, 1e-5};
  equals_cpu(device.get(), tiny, lively_parameters(tiny, 5),
             {{numbers.tokens(9, 7), 4, 1.0f, 0, 0.0f},
              {numbers.tokens(2100, 7), 2040, 1.0f, 3, 0.0f},
              {numbers.tokens(5, 7), 4, 1.0f, 0, 0.0f}});
  equals_generation(device.get(), shape, parameters);
  refusals(device.get(), shape, parameters, jobs);
  TEST_MAIN_END("cuda replay");
}
