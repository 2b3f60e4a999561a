// What generation of several requests wrote, and its comparison.
#pragma once

#include "support.h"

namespace covenant_test {

template <int32_t Requests, int32_t NewTokens, int32_t Dims, int32_t Tops>
struct Generated {
  std::vector<int32_t> tokens, tops;
  std::vector<float> log_probs, top_log_probs;
  std::vector<int8_t> fingerprints;
  std::vector<cov_generate_output> outputs;
  Generated()
      : tokens(Requests * NewTokens, -7),
        tops(Requests * NewTokens * Tops, -7),
        log_probs(Requests * NewTokens),
        top_log_probs(Requests * NewTokens * Tops),
        fingerprints(Requests * NewTokens * Dims) {
    for (int32_t i = 0; i < Requests; ++i)
      outputs.push_back({tokens.data() + i * NewTokens, log_probs.data() + i * NewTokens,
                         fingerprints.data() + i * NewTokens * Dims, tops.data() + i * NewTokens * Tops,
                         top_log_probs.data() + i * NewTokens * Tops, 0, 0});
  }
};

template <typename Results>
void check_same(const Results& a, const Results& b) {
  CHECK(a.tokens == b.tokens);
  CHECK_SAME(a.log_probs.data(), b.log_probs.data(), a.log_probs.size() * sizeof(float));
  CHECK(a.fingerprints == b.fingerprints);
  CHECK(a.tops == b.tops);
  CHECK_SAME(a.top_log_probs.data(), b.top_log_probs.data(),
             a.top_log_probs.size() * sizeof(float));
  for (size_t i = 0; i < a.outputs.size(); ++i) {
    CHECK(a.outputs[i].token_count == b.outputs[i].token_count);
    CHECK(a.outputs[i].finish_reason == b.outputs[i].finish_reason);
  }
}

}  // namespace covenant_test
