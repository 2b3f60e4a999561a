// The jobs of the soak: what a long-lived process does with the kernels, in any order, with bad
// turns among them. Each job checks what it can and says what went wrong.
#pragma once

#include <atomic>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "covenant/generator.h"
#include "covenant/lora.h"
#include "covenant/model.h"
#include "covenant/sparse.h"

namespace covenant_soak {

// What a worker thread owns. Models are not shared between workers.
class Worker {
 public:
  explicit Worker(uint64_t seed) : random_(seed) {}
  ~Worker() { close(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  struct Job {
    const char* name;
    int weight;  // how often, relative to the others
    void (Worker::*run)();
  };
  static const std::vector<Job>& jobs();

  // Chooses a job; the same seed gives the same sequence.
  const Job& choose();
  // Runs it, making a model first when there is none. False: `fault` says why.
  bool run(const Job& job);

  const std::string& fault() const { return fault_; }
  // For other threads.
  uint64_t model_bytes() const { return model_bytes_.load(std::memory_order_relaxed); }
  void cancel() { cancel_.store(1, std::memory_order_relaxed); }
  uint64_t cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  uint64_t refused() const { return refused_.load(std::memory_order_relaxed); }

 private:
  void create();
  void close();
  void recreate();
  void train();
  void forward_and_backward();
  void generate_and_replay();
  void generate_and_cancel();
  void join_and_leave();
  void compress_and_merge();
  void update_at_once();
  void decode_damaged();
  void hash();
  void exceed_memory();
  void adapters();
  void deltas();
  void activations();
  void projections();
  void bad_arguments();
  void trim();

  int32_t below(int32_t bound) { return static_cast<int32_t>(random_() % uint64_t(bound)); }
  void fill_batch(int32_t sequences, int32_t length);
  void make_requests(int32_t count, int32_t new_tokens);
  int32_t generate(const cov_generate_options& options);
  std::vector<uint8_t> compress(const std::vector<cov_tensor_info>& tensors,
                                cov_sparse_format format, float drift);
  cov_status train_adapters(cov_lora* lora);
  void pack(const std::vector<uint8_t>& body, const std::vector<cov_tensor_info>& tensors,
            cov_sparse_format format);
  std::vector<float> parameters();
  std::vector<float> numbers(size_t count, float scale);
  std::vector<cov_tensor_info> table() const;
  // Notes a fault when the code is not one of those expected.
  bool expect(cov_status status, int32_t code, const char* what);
  void wrong(const char* what);

  std::mt19937_64 random_;
  cov_model_shape shape_ = {};
  cov_model* model_ = nullptr;
  std::vector<float> base_, feedback_;
  std::vector<int32_t> tokens_, targets_;
  cov_batch batch_ = {};
  std::vector<cov_generate_request> requests_;
  std::vector<cov_generate_output> outputs_;
  std::vector<int32_t> prompt_, written_;
  std::vector<float> log_probs_;
  std::string fault_;
  std::atomic<uint64_t> model_bytes_{0}, cancelled_{0}, refused_{0};
  std::atomic<int32_t> cancel_{0};
};

}  // namespace covenant_soak
