// Simulated peers that train one model in rounds: each takes inner AdamW steps on batches of its own,
// then their pseudo-gradients change the shared parameters, exchanged dense or compressed.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "pseudo_gradients.h"

namespace covenant_bench {

// Lengths and rates of a run; those of the inner steps are the same for every exchange.
struct Schedule {
  cov_model_shape shape = {256, 128, 352, 4, 4, 4, 128, 1, 10000.0, 1e-5};  // 0.84 M parameters
  int32_t peers = 4;
  int32_t rounds = 48;
  int32_t inner_steps = 10;
  int32_t sequences = 4;
  int32_t warmup_steps = 20;
  float peak_rate = 3e-3f;
  float final_rate_ratio = 0.1f;
};

// mode 0: dense fp32 with Nesterov momentum; 2 or 1: bits per value, error feedback, no momentum.
struct Exchange {
  int32_t mode = 0;
  float rate = 1.0f;
  float momentum = 0.0f;
};

// Held-out loss after a round, nats per byte.
struct Point {
  int32_t round;
  double loss;
};

// Nine tenths to train on, the rest held out.
struct Text {
  explicit Text(std::vector<uint8_t> bytes)
      : training(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 10 * 9)),
        held_out(bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 10 * 9), bytes.end()) {}
  std::vector<uint8_t> training;
  std::vector<uint8_t> held_out;
};

namespace detail {

struct ModelDeleter {
  void operator()(cov_model* model) const { cov_model_release(model); }
};
using ModelHandle = std::unique_ptr<cov_model, ModelDeleter>;

struct Peer {
  ModelHandle model;
  TrainingRun run;
  std::unique_ptr<Batches> batches;
  std::vector<float> error_feedback;
  std::vector<uint8_t> body;

  float* parameters() const {
    float* data = nullptr;
    uint64_t length = 0;
    require(cov_model_buffer(model.get(), COV_PARAMETERS, &data, &length));
    return data;
  }
};

class Mesh {
 public:
  Mesh(const Schedule& schedule, Exchange exchange, uint32_t seed, const Text& text)
      : schedule_(schedule), exchange_(exchange), text_(text) {
    tensors_.resize(static_cast<size_t>(cov_tensor_count(&schedule.shape)));
    require(cov_tensor_table(&schedule.shape, tensors_.data(), count()));
    base_.resize(cov_parameter_count(&schedule.shape));
    require(cov_initial_parameters(&schedule.shape, seed, base_.data(), base_.size()));
    momentum_.assign(base_.size(), 0.0f);
    for (int32_t p = 0; p < schedule.peers; ++p) add_peer(seed * 64 + static_cast<uint32_t>(p) + 1);
  }

  void round() {
    for (Peer& peer : peers_) {
      std::copy(base_.begin(), base_.end(), peer.parameters());
      for (int32_t i = 0; i < schedule_.inner_steps; ++i) {
        const cov_batch batch = peer.batches->next();
        const cov_adamw_options adamw = {rate_at(step_ + i), 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
        require(cov_model_train_step(peer.model.get(), &batch, &adamw, nullptr, nullptr));
      }
    }
    step_ += schedule_.inner_steps;
    if (exchange_.mode == 0) exchange_dense();
    else exchange_sparse();
  }

  // Mean over windows that cover the held-out text evenly, the same in every run.
  double held_out_loss() {
    constexpr size_t kWindows = 128, kAtOnce = 16;
    const auto length = static_cast<size_t>(schedule_.shape.max_positions);
    const size_t stride = (text_.held_out.size() - length - 1) / (kWindows - 1);
    cov_model* const model = peers_[0].model.get();
    std::copy(base_.begin(), base_.end(), peers_[0].parameters());
    std::vector<int32_t> tokens(kAtOnce * length), targets(tokens.size());
    std::vector<float> log_probs(tokens.size());
    double sum = 0;
    for (size_t first = 0; first < kWindows; first += kAtOnce) {
      for (size_t i = 0; i < tokens.size(); ++i) {
        const size_t at = (first + i / length) * stride + i % length;
        tokens[i] = text_.held_out[at];
        targets[i] = text_.held_out[at + 1];
      }
      const cov_batch batch = {tokens.data(), targets.data(), kAtOnce,
                               static_cast<int32_t>(length)};
      const cov_forward_options options{};
      cov_forward_output output{};
      output.log_probs = log_probs.data();
      require(cov_model_forward(model, &batch, &options, &output));
      for (const float value : log_probs) sum -= static_cast<double>(value);
    }
    return sum / static_cast<double>(kWindows * length);
  }

 private:
  int32_t count() const { return static_cast<int32_t>(tensors_.size()); }

  void add_peer(uint32_t seed) {
    Peer peer;
    peer.run.shape = schedule_.shape;
    peer.run.sequences = schedule_.sequences;
    peer.run.sequence_length = schedule_.shape.max_positions;
    peer.run.seed = seed;
    cov_model_options options{};
    options.parameters = base_.data();
    options.parameter_count = base_.size();
    options.threads = 1;
    options.compute = COV_COMPUTE_BF16;
    cov_model* model = nullptr;
    require(cov_model_create(&schedule_.shape, &options, &model));
    peer.model.reset(model);
    if (exchange_.mode != 0) {
      uint64_t bytes = 0;
      require(cov_sparse_size(tensors_.data(), count(), format(), &bytes, nullptr));
      peer.body.resize(bytes);
      peer.error_feedback.assign(base_.size(), 0.0f);
    }
    peers_.push_back(std::move(peer));
    // The batches refer to their peer's run, which stays where it is from here on.
    if (static_cast<int32_t>(peers_.size()) < schedule_.peers) return;
    for (Peer& each : peers_) each.batches = std::make_unique<Batches>(text_.training, each.run);
  }

  cov_sparse_format format() const { return {exchange_.mode, 64}; }

  // Warm-up, then linear to the final ratio at the last step.
  float rate_at(int32_t step) const {
    const auto warmup = static_cast<float>(schedule_.warmup_steps);
    const auto at = static_cast<float>(step);
    if (at < warmup) return schedule_.peak_rate * (at + 1) / warmup;
    const auto last = static_cast<float>(schedule_.rounds * schedule_.inner_steps);
    const float gone = last > warmup ? (at - warmup) / (last - warmup) : 1.0f;
    return schedule_.peak_rate * (1 - (1 - schedule_.final_rate_ratio) * gone);
  }

  void exchange_dense() {
    std::vector<const float*> own;
    for (const Peer& peer : peers_) own.push_back(peer.parameters());
    const auto peers = static_cast<float>(peers_.size());
    for (size_t i = 0; i < base_.size(); ++i) {
      float sum = 0;
      for (const float* parameters : own) sum += base_[i] - parameters[i];
      const float mean = sum / peers;
      momentum_[i] = exchange_.momentum * momentum_[i] + mean;
      base_[i] -= exchange_.rate * (mean + exchange_.momentum * momentum_[i]);
    }
  }

  void exchange_sparse() {
    std::vector<const uint8_t*> bodies;
    std::vector<uint64_t> sizes;
    for (Peer& peer : peers_) {
      const cov_sparse_source source = {base_.data(), peer.parameters(),
                                        peer.error_feedback.data(), base_.size(), 0.95f};
      require(cov_sparse_compress(&source, tensors_.data(), count(), format(), 1,
                                  peer.body.data(), peer.body.size()));
      bodies.push_back(peer.body.data());
      sizes.push_back(peer.body.size());
    }
    const std::vector<float> weights(peers_.size(), 1.0f);
    const cov_merge_input input = {bodies.data(), sizes.data(), weights.data(),
                                   static_cast<int32_t>(peers_.size()), COV_MERGE_CONTRIBUTORS, 1};
    std::vector<int32_t> skipped(tensors_.size());
    int32_t skipped_count = 0;
    require(cov_sparse_update(base_.data(), base_.size(), &input, tensors_.data(), count(),
                              format(), exchange_.rate, 1, skipped.data(), &skipped_count));
  }

  const Schedule& schedule_;
  const Exchange exchange_;
  const Text& text_;
  std::vector<cov_tensor_info> tensors_;
  std::vector<float> base_;
  std::vector<float> momentum_;
  std::vector<Peer> peers_;
  int32_t step_ = 0;
};

}  // namespace detail

// Trains from `seed`; the held-out loss at about ten places and, last, at the end.
inline std::vector<Point> outer_training(const Schedule& schedule, Exchange exchange,
                                         uint32_t seed, const Text& text) {
  detail::Mesh mesh(schedule, exchange, seed, text);
  const int32_t every = std::max(1, schedule.rounds / 10);
  std::vector<Point> curve;
  for (int32_t round = 1; round <= schedule.rounds; ++round) {
    mesh.round();
    if (round % every == 0 || round == schedule.rounds)
      curve.push_back({round, mesh.held_out_loss()});
  }
  return curve;
}

}  // namespace covenant_bench
