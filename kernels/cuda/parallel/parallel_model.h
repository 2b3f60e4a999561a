// Replicas of a pipeline, and the step they make together (covenant/parallel.h).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "covenant/parallel.h"
#include "engine/stages.cuh"
#include "parallel/crew.h"
#include "parallel/pipeline.h"
#include "parallel/spread.h"

namespace covenant::cuda {

class ParallelGenerator;  // parallel_generator.h
class ParallelLora;       // parallel_lora.h

class ParallelModel {
 public:
  ParallelModel(const int32_t* devices, int32_t count, const cov_model_shape& shape,
                const cov_parallel_options& options);
  ~ParallelModel();

  const char* report() const { return report_.c_str(); }
  Stage& stage_at(int32_t place) {
    return *replicas_[static_cast<size_t>(place) / stages_]->stages()[static_cast<size_t>(place) % stages_];
  }
  int64_t step_count() const { return spread_.step_count(); }
  void set_step_count(int64_t count) { spread_.set_step_count(count); }

  void read(cov_buffer which, uint64_t offset, uint64_t count, float* values);
  void read_replica(int32_t replica, cov_buffer which, uint64_t offset, uint64_t count, float* values);
  void write(cov_buffer which, uint64_t offset, uint64_t count, const float* values);
  void forward(const cov_batch& batch, const cov_forward_options& options,
               const cov_forward_output& output);
  void backward(const float* coefficients, uint64_t count);
  double optimizer_step(const cov_adamw_options& options);
  void train_step(const cov_batch& batch, const cov_adamw_options& options, double* loss,
                  double* norm);
  // Requests are spread over the replicas.
  void generate(const cov_generate_request* requests, int32_t count, const cov_generate_options& options,
                cov_generate_output* outputs);
  void replay(const cov_replay_request* requests, int32_t count, const cov_replay_options& options,
              const cov_replay_output* outputs);
  // As Model's: on every replica.
  void use_lora(ParallelLora* lora);

 private:
  friend class ParallelGenerator;
  friend class ParallelLora;
  void connect_devices(int32_t collectives);
  void load(const cov_batch& batch, Pass pass, int32_t top_count = 0);
  void run(Pass pass, float inverse_temperature, const float* coefficients, float constant);
  void collect(const cov_forward_output& output);
  double step(const cov_adamw_options& options);
  void finish();
  void require_open() const;
  void attempt(Spread* clears, const std::function<void()>& body);
  // What is trained: the parameters, or the adapters in use.
  Spread* trained();
  // The part of a call that changes parameters.
  void change(const std::function<void()>& body);
  void drop_kept();
  // Calls body(stages, requests, share) for the share of each replica, in threads of their own.
  using OnShare = std::function<void(const Stages& stages, int32_t count, const Share& share)>;
  void spread(int32_t count, const OnShare& body);
  Stages stages_of(size_t replica);
  Crew& crew();

  size_t stages_;
  std::vector<std::unique_ptr<Pipeline>> replicas_;
  Rings rings_;
  Spread spread_{rings_};
  std::string report_, closed_;
  bool changing_ = false;  // parameters are being written
  ParallelLora* lora_ = nullptr;
  std::unique_ptr<Crew> crew_;  // when first needed
  uint64_t kept_positions_ = 0;
  float kept_inverse_temperature_ = 1.0f;
};

}  // namespace covenant::cuda
