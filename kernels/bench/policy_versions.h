// Two consecutive versions of a policy: a trained model goes on with GRPO steps of its own, on groups
// of completions that it samples, rewarded, advantages normalised within the group.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "covenant/model.h"
#include "pseudo_gradients.h"

namespace covenant_bench {

struct PolicyRun {
  float learning_rate = 1e-6f;
  int32_t versions = 3;  // the last two are compared
  int32_t steps = 4;     // optimiser steps from one version to the next
  int32_t groups = 4;
  int32_t group_size = 8;
  int32_t prompt_length = 32;
  int32_t new_tokens = 32;
};

struct PolicyVersions {
  std::vector<uint16_t> base;
  std::vector<uint16_t> next;
};

inline std::vector<uint16_t> rounded(const float* values, uint64_t count) {
  std::vector<uint16_t> out(count);
  for (uint64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    out[i] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
  return out;
}

// One GRPO step: sample, reward, advantages as coefficients of the log-probabilities, AdamW.
inline void policy_step(cov_model* model, const PolicyRun& run, const std::vector<uint8_t>& text,
                        uint32_t number) {
  const auto count = static_cast<size_t>(run.groups * run.group_size);
  const auto prompt = static_cast<size_t>(run.prompt_length);
  const auto fresh = static_cast<size_t>(run.new_tokens);
  std::vector<int32_t> prompts(count * prompt), completions(count * fresh);
  std::vector<cov_generate_request> requests(count);
  std::vector<cov_generate_output> outputs(count);
  for (size_t i = 0; i < count; ++i) {
    const size_t group = i / static_cast<size_t>(run.group_size);
    const size_t at = (number * 7919 + group * 104729) % (text.size() - prompt);
    for (size_t t = 0; t < prompt; ++t) prompts[i * prompt + t] = text[at + t];
    requests[i].prompt = &prompts[i * prompt];
    requests[i].prompt_length = run.prompt_length;
    requests[i].max_new_tokens = run.new_tokens;
    requests[i].temperature = 1.0f;
    requests[i].top_p = 1.0f;
    std::memcpy(requests[i].sampling_seed, &number, sizeof number);
    requests[i].sampling_seed[8] = static_cast<uint8_t>(i);
    outputs[i].tokens = &completions[i * fresh];
  }
  const cov_generate_options options{};
  require(cov_model_generate(model, requests.data(), static_cast<int32_t>(count), &options,
                             outputs.data()));
  // The reward: how many of the characters are vowels.
  std::vector<double> rewards(count);
  for (size_t i = 0; i < count; ++i) {
    for (size_t t = 0; t < fresh; ++t) {
      const int32_t token = completions[i * fresh + t];
      rewards[i] += token > 0 && std::strchr("aeiou", token) != nullptr ? 1 : 0;
    }
  }
  const size_t length = prompt + fresh - 1;
  std::vector<int32_t> tokens(count * length), targets(count * length, -1);
  std::vector<float> coefficients(count * length);
  for (size_t i = 0; i < count; ++i) {
    const auto group_size = static_cast<size_t>(run.group_size);
    const size_t first = i / group_size * group_size;
    double mean = 0, square = 0;
    for (size_t j = first; j < first + group_size; ++j) {
      mean += rewards[j] / run.group_size;
      square += rewards[j] * rewards[j] / run.group_size;
    }
    const double advantage =
        (rewards[i] - mean) / (std::sqrt(std::max(0.0, square - mean * mean)) + 1e-6);
    for (size_t t = 0; t < length; ++t) {
      tokens[i * length + t] =
          t < prompt ? prompts[i * prompt + t] : completions[i * fresh + t - prompt];
      if (t + 1 < prompt) continue;
      targets[i * length + t] = completions[i * fresh + t + 1 - prompt];
      coefficients[i * length + t] =
          static_cast<float>(-advantage / static_cast<double>(count * fresh));
    }
  }
  const cov_batch batch = {tokens.data(), targets.data(), static_cast<int32_t>(count),
                           static_cast<int32_t>(length)};
  const cov_forward_options forward = {1, 0, 1.0f};
  const cov_forward_output nothing{};
  require(cov_model_forward(model, &batch, &forward, &nothing));
  require(cov_model_backward(model, coefficients.data(), coefficients.size()));
  const cov_adamw_options adamw = {run.learning_rate, 0.9f, 0.95f, 1e-8f, 0.0f, 1.0f};
  require(cov_model_optimizer_step(model, &adamw, nullptr));
}

inline PolicyVersions policy_versions(const TrainingRun& training,
                                      const std::vector<float>& parameters, const PolicyRun& run,
                                      const std::vector<uint8_t>& text) {
  cov_model_options options{};
  options.parameters = parameters.data();
  options.parameter_count = parameters.size();
  options.threads = training.threads;
  cov_model* model = nullptr;
  require(cov_model_create(&training.shape, &options, &model));
  float* live = nullptr;
  uint64_t length = 0;
  require(cov_model_buffer(model, COV_PARAMETERS, &live, &length));
  PolicyVersions out;
  uint32_t number = 1;
  for (int32_t version = 1; version < run.versions; ++version) {
    out.base = rounded(live, length);
    for (int32_t step = 0; step < run.steps; ++step) policy_step(model, run, text, number++);
    out.next = rounded(live, length);
  }
  cov_model_release(model);
  return out;
}

}  // namespace covenant_bench
