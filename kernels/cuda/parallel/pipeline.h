// A model spread over devices by layers. Micro-batches go through it as in 1F1B: a stage computes a
// backward as soon as it can, so it holds activations of no more micro-batches than there are stages from
// it on.
//
// One thread queues the work of all devices; it waits for none of them during a pass. A stage's own stream
// computes, its side stream carries what comes and goes.
//
// A tied embedding lies on the last stage with the head: embedded rows come from there, and their gradients
// go back to it. In fp32 they are added in the order of a single device, each before the head's gradient of
// the next micro-batch, which costs the overlap of backwards; in bf16 after all others.
#pragma once

#include <memory>
#include <vector>

#include "parallel/stage.h"

namespace covenant::cuda {

class Pipeline {
 public:
  Pipeline(const int32_t* devices, int32_t stages, uint64_t memory_limit_bytes,
           const cov_model_shape& shape, Compute compute);

  std::vector<std::unique_ptr<Stage>>& stages() { return stages_; }
  std::vector<Member> members() const;
  // Carries what goes from stage to stage; needed for more than one of them.
  void set_communicator(std::unique_ptr<Communicator> communicator);

  // Sequences [first, first + count) of the batch are what the next pass works on: allocates, and copies
  // tokens to the devices.
  void load(const cov_batch& batch, int64_t first, int64_t count, Pass pass, int32_t top_count);
  // coefficients: by position of the batch, for kBackward; else `constant` for every scored row.
  void start(Pass pass, float inverse_temperature, const float* coefficients, float constant);
  // Queues what can be queued; false when the pass is complete.
  bool advance();
  // Waits for the pass. By position of the batch; null: not wanted. COV_NON_FINITE.
  void collect(const cov_forward_output& output);
  // Frees what a kept forward holds.
  void drop_kept();
  // Frees all that a pass allocates. Nothing may run.
  void drop_memory();

 private:
  bool forward_ready(size_t stage) const;
  bool backward_ready(size_t stage) const;
  bool backward_next(size_t stage) const;
  void forward(size_t stage);
  void backward(size_t stage);
  void embed_rows(size_t micro_batch);
  void embed_gradient(size_t micro_batch);
  void add_embedding(size_t micro_batch);
  void score(size_t micro_batch, bool backward, float* dx);

  Stage& last() { return *stages_.back(); }
  bool remote_embedding() const { return stages_.size() > 1 && tied_; }
  // From afar; not while adapters are in use.
  bool trains_embedding() const { return remote_embedding() && stages_[0]->model.lora() == nullptr; }
  bool in_order() const { return trains_embedding() && !bf16_; }

  std::vector<std::unique_ptr<Stage>> stages_;
  std::unique_ptr<Communicator> communicator_;
  bool tied_, bf16_;
  Pass pass_ = Pass::kForward;
  size_t micro_batches_ = 0;
  float inverse_temperature_ = 1.0f, constant_ = 0.0f;
  bool use_coefficients_ = false;
  // On the last stage: by scored row, micro-batch after micro-batch.
  std::vector<uint64_t> score_offsets_;
  Scores scores_;
  Buffer<float> coefficients_;
  // On the last stage, for a tied embedding: rows to send, gradients received.
  Buffer<float> embedded_, embedding_gradients_;
  std::vector<Event> embedding_arrived_;
};

}  // namespace covenant::cuda
