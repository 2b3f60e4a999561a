// Real pseudo-gradients: a LLaMA of about ten million parameters trained by the engine on the bytes
// of a text, several rounds of inner steps with SparseLoCo between them.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "covenant/model.h"
#include "covenant/rng.h"
#include "covenant/sparse.h"
#include "rows.h"

namespace covenant_bench {

// What a peer compresses at the end of a round.
struct PseudoGradient {
  std::vector<cov_tensor_info> tensors;
  std::vector<float> base;
  std::vector<float> current;
  std::vector<float> error_feedback;  // before this round's update is taken out
  double loss = 0;                    // of the last inner step, nats per byte
  cov_sparse_source source() {
    return {base.data(), current.data(), error_feedback.data(), base.size(), 0.95f};
  }
};

struct TrainingRun {
  cov_model_shape shape = {256, 320, 896, 8, 5, 5, 128, 1, 10000.0, 1e-5};  // 10.2 M parameters
  int32_t rounds = 4;
  int32_t inner_steps = 10;
  int32_t sequences = 8;
  int32_t sequence_length = 128;
  float learning_rate = 1e-3f;
  cov_sparse_format format = {2, 64};
  uint32_t seed = 1;
  int32_t threads = 2;
};

inline std::vector<uint8_t> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<uint8_t> text((std::istreambuf_iterator<char>(file)),
                            std::istreambuf_iterator<char>());
  if (text.size() < 10000) {
    std::fprintf(stderr, "%s is not readable or too short\n", path.c_str());
    std::exit(1);
  }
  return text;
}

// Draws a batch of random windows of the text.
class Batches {
 public:
  Batches(const std::vector<uint8_t>& text, const TrainingRun& run)
      : text_(text),
        run_(run),
        tokens_(static_cast<size_t>(run.sequences * run.sequence_length)),
        targets_(tokens_.size()) {
    std::memcpy(seed_, &run.seed, sizeof run.seed);
  }

  cov_batch next() {
    const auto length = static_cast<size_t>(run_.sequence_length);
    for (size_t s = 0; s < static_cast<size_t>(run_.sequences); ++s) {
      const double u = cov_uniform_at(seed_, drawn_++);
      const auto at = static_cast<size_t>(u * static_cast<double>(text_.size() - length - 1));
      for (size_t t = 0; t < length; ++t) {
        tokens_[s * length + t] = text_[at + t];
        targets_[s * length + t] = text_[at + t + 1];
      }
    }
    return {tokens_.data(), targets_.data(), run_.sequences, run_.sequence_length};
  }

 private:
  const std::vector<uint8_t>& text_;
  const TrainingRun& run_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> targets_;
  uint8_t seed_[32] = {};
  uint32_t drawn_ = 0;
};

// Trains, and returns what the last round's compression starts from.
inline PseudoGradient pseudo_gradient(const TrainingRun& run, const std::vector<uint8_t>& text) {
  PseudoGradient out;
  out.tensors.resize(static_cast<size_t>(cov_tensor_count(&run.shape)));
  const auto count = static_cast<int32_t>(out.tensors.size());
  require(cov_tensor_table(&run.shape, out.tensors.data(), count));
  out.base.resize(cov_parameter_count(&run.shape));
  require(cov_initial_parameters(&run.shape, run.seed, out.base.data(), out.base.size()));
  out.error_feedback.assign(out.base.size(), 0.0f);
  cov_model_options options{};
  options.parameters = out.base.data();
  options.parameter_count = out.base.size();
  options.threads = run.threads;
  cov_model* model = nullptr;
  require(cov_model_create(&run.shape, &options, &model));
  float* parameters = nullptr;
  uint64_t length = 0;
  require(cov_model_buffer(model, COV_PARAMETERS, &parameters, &length));
  uint64_t body_bytes = 0;
  require(cov_sparse_size(out.tensors.data(), count, run.format, &body_bytes, nullptr));
  std::vector<uint8_t> body(body_bytes);
  Batches batches(text, run);
  const cov_adamw_options adamw = {run.learning_rate, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
  for (int32_t round = 0;; ++round) {
    for (int32_t step = 0; step < run.inner_steps; ++step) {
      const cov_batch batch = batches.next();
      require(cov_model_train_step(model, &batch, &adamw, &out.loss, nullptr));
    }
    out.current.assign(parameters, parameters + length);
    if (round + 1 == run.rounds) break;
    const cov_sparse_source source = out.source();
    require(cov_sparse_compress(&source, out.tensors.data(), count, run.format, run.threads,
                                body.data(), body.size()));
    require(cov_sparse_apply(out.base.data(), out.base.size(), body.data(), body.size(),
                             out.tensors.data(), count, run.format, 1.0f));
    std::memcpy(parameters, out.base.data(), length * sizeof(float));
  }
  cov_model_release(model);
  return out;
}

}  // namespace covenant_bench
