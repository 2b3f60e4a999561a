// Generation on the device against the CPU: equal tokens, log-probs and fingerprints in fp32, whatever is
// computed at once; equal draws in bf16 whatever the batch.
#include "generated.h"
#include "support.h"

namespace {

using namespace covenant_test;

constexpr int32_t kNew = 9, kDims = 7, kTops = 3, kRequests = 4;

using Results = Generated<kRequests, kNew, kDims, kTops>;

// Enough tokens to choose from that threads draw beside each other, and logits that are not finite.
void many_tokens(cov_device* device) {
  const cov_model_shape shape = {4001, 8, 8, 1, 1, 1, 64, 1, 10000.0, 1e-5};
  std::vector<float> parameters = lively_parameters(shape, 6);
  const std::vector<int32_t> prompts = Numbers(7).tokens(30, shape.vocab_size);
  std::vector<cov_generate_request> requests;
  for (int32_t i = 0; i < kRequests; ++i)
    requests.push_back({prompts.data() + i, 3 + 2 * i, kNew - i, 0.5f + 0.3f * static_cast<float>(i), 0,
                        i % 2 == 0 ? 0.9f : 0.0f, nullptr, 0, {static_cast<uint8_t>(i)}});
  const cov_fingerprint_options fingerprint = {{4, 2}, kDims};
  const cov_generate_options options = {&fingerprint, kTops, 0, nullptr, nullptr, nullptr, 0};
  Results cpu, results;
  const TestModel model(shape, parameters);
  CHECK_OK(cov_model_generate(model, requests.data(), kRequests, &options, cpu.outputs.data()));
  const DeviceModel gpu(device, shape, parameters);
  CHECK_OK(cov_device_model_generate(gpu, requests.data(), kRequests, &options, results.outputs.data()));
  check_same(results, cpu);
  parameters.back() = NAN;  // of the final norm
  CHECK_OK(cov_device_model_write(gpu, COV_PARAMETERS, 0, parameters.size(), parameters.data()));
  CHECK_CODE(cov_device_model_generate(gpu, requests.data(), kRequests, &options, results.outputs.data()),
             COV_NON_FINITE);
  CHECK(results.outputs[0].token_count == 0);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer device = open_device();
  const cov_model_shape shape = {37, 24, 20, 2, 4, 2, 64, 0, 10000.0, 1e-5};
  const std::vector<float> parameters = lively_parameters(shape, 11);
  const std::vector<int32_t> prompts = Numbers(3).tokens(40, shape.vocab_size);
  const int32_t stops[] = {5, 9, 30};
  std::vector<cov_generate_request> requests;
  requests.push_back({prompts.data(), 11, kNew, 1.0f, 0, 0.0f, nullptr, 0, {1, 2}});
  requests.push_back({prompts.data() + 3, 1, 4, 0.7f, 5, 0.9f, stops, 3, {7}});
  requests.push_back({prompts.data(), 17, kNew, 0.0f, 0, 0.0f, nullptr, 0, {}});
  requests.push_back({prompts.data() + 9, 6, kNew, 1.3f, 0, 0.8f, stops, 2, {9}});
  const cov_fingerprint_options fingerprint = {{4, 2}, kDims};
  cov_generate_options options = {&fingerprint, kTops, 0, nullptr, nullptr, nullptr, 0};

  Results cpu;
  const TestModel model(shape, parameters);
  CHECK_OK(cov_model_generate(model, requests.data(), kRequests, &options, cpu.outputs.data()));
  const DeviceModel gpu(device.get(), shape, parameters);
  const DeviceModel rounded(device.get(), shape, parameters, COV_COMPUTE_BF16);
  Results first;
  for (int32_t batch : {1, 3, 0}) {
    options.max_batch = batch;
    Results results;
    CHECK_OK(cov_device_model_generate(gpu, requests.data(), kRequests, &options,
                                       results.outputs.data()));
    check_same(results, cpu);
    Results in_bf16;
    CHECK_OK(cov_device_model_generate(rounded, requests.data(), kRequests, &options,
                                       in_bf16.outputs.data()));
    if (batch == 1) {
      std::swap(first, in_bf16);
    } else {
      check_same(in_bf16, first);
    }
  }

  Results none;
  const int32_t cancel = 1;
  options.cancel = &cancel;
  CHECK_CODE(cov_device_model_generate(gpu, requests.data(), kRequests, &options,
                                       none.outputs.data()),
             COV_CANCELLED);
  options.cancel = nullptr;
  options.weights = 3;
  CHECK_CODE(cov_device_model_generate(gpu, requests.data(), kRequests, &options,
                                       none.outputs.data()),
             COV_INVALID_ARGUMENT);
  options.weights = 0;
  requests[1].prompt_length = 80;
  CHECK_CODE(cov_device_model_generate(gpu, requests.data(), kRequests, &options,
                                       none.outputs.data()),
             COV_OUT_OF_RANGE);
  many_tokens(device.get());
  TEST_MAIN_END("cuda generate");
}
