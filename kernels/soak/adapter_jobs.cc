// Jobs with low-rank adapters: trained, used in generation, merged or thrown away.
#include <cmath>
#include <vector>

#include "jobs.h"

namespace covenant_soak {

std::vector<float> Worker::parameters() {
  float* data = nullptr;
  uint64_t length = 0;
  expect(cov_model_buffer(model_, COV_PARAMETERS, &data, &length), COV_OK, "parameters");
  return {data, data + length};
}

cov_status Worker::train_adapters(cov_lora* lora) {
  constexpr cov_adamw_options kAdamw = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.0f, 1.0f};
  fill_batch(1 + below(3), 1 + below(40));
  cov_forward_options options = {};
  options.keep_activations = 1;
  const cov_forward_output output = {};
  const std::vector<float> coefficients(tokens_.size(), -1.0f / static_cast<float>(tokens_.size()));
  cov_status status = cov_model_forward(model_, &batch_, &options, &output);
  if (status.code == COV_OK)
    status = cov_model_backward(model_, coefficients.data(), coefficients.size());
  float norm = 0;
  if (status.code == COV_OK) status = cov_lora_optimizer_step(lora, &kAdamw, &norm);
  if (status.code == COV_OK && !std::isfinite(norm)) wrong("adapters have no finite gradient");
  return status;
}

void Worker::adapters() {
  const cov_lora_options options = {1 + below(9), 8.0f, 1 + below(127), random_()};
  cov_lora* lora = nullptr;
  if (!expect(cov_lora_create(model_, &options, &lora), COV_OK, "adapters")) return;
  expect(cov_model_use_lora(model_, lora), COV_OK, "use of adapters");
  for (int32_t steps = below(3); steps >= 0 && fault_.empty(); --steps)
    expect(train_adapters(lora), COV_OK, "step of adapters");
  if (fault_.empty() && below(2) == 0) generate_and_replay();
  // Merged for good, or on trial: then the base's bits come back.
  const int32_t kind = below(4);
  if (fault_.empty() && kind < 2) {
    const std::vector<float> before = parameters();
    expect(cov_lora_merge(lora, kind), COV_OK, "merge of adapters");
    if (kind == 1 && fault_.empty()) {
      expect(cov_lora_unmerge(lora), COV_OK, "end of a trial");
      if (parameters() != before) wrong("after a trial the base has other bits");
    }
  }
  // Sometimes released while in use.
  if (below(2) == 0) expect(cov_model_use_lora(model_, nullptr), COV_OK, "no adapters");
  cov_lora_release(lora);
}

}  // namespace covenant_soak
