// Generation and replay over replicas: each works on its share of the requests, which do not depend on each
// other.
#include <mutex>
#include <thread>

#include "parallel/parallel_model.h"

namespace covenant::cuda {
namespace {

// The caller's callback, for one thread at a time.
struct Listener {
  const cov_generate_options& options;
  std::mutex mutex;

  static void call(void* context, int32_t request, int32_t index, int32_t token, float log_prob) {
    auto& self = *static_cast<Listener*>(context);
    const std::lock_guard<std::mutex> guard(self.mutex);
    self.options.on_token(self.options.context, request, index, token, log_prob);
  }
};

struct Threads {
  std::vector<std::thread> list;
  ~Threads() {
    for (std::thread& thread : list) thread.join();
  }
};

}  // namespace

void ParallelModel::spread(int32_t count, const OnShare& body) {
  if (stages_ > 1) raise(COV_UNSUPPORTED, "a model whose layers are split does not generate or replay");
  const auto replicas = static_cast<int64_t>(replicas_.size());
  std::atomic<bool> stop{false};
  std::mutex mutex;
  cov_status first_failure = cov_ok();
  const auto run = [&](int64_t r) {
    const auto first = static_cast<int32_t>(count * r / replicas);
    const auto after = static_cast<int32_t>(count * (r + 1) / replicas);
    if (first == after) return;
    const cov_status status = guard([&] {
      Stage& stage = *replicas_[static_cast<size_t>(r)]->stages()[0];
      stage.device.activate();
      body(stage.model, after - first, {first, static_cast<int32_t>(replicas), &stop});
    });
    if (status.code == COV_OK) return;
    const std::lock_guard<std::mutex> guard(mutex);
    if (first_failure.code == COV_OK) first_failure = status;
    stop.store(true, std::memory_order_relaxed);
  };
  attempt(nullptr, [&] {
    {
      Threads threads;
      threads.list.reserve(replicas_.size());
      try {
        for (int64_t r = 1; r < replicas; ++r) threads.list.emplace_back(run, r);
      } catch (...) {
        stop.store(true, std::memory_order_relaxed);
        throw;
      }
      run(0);
    }
    require(first_failure);
  });
}

void ParallelModel::generate(const cov_generate_request* requests, int32_t count,
                             const cov_generate_options& options, cov_generate_output* outputs) {
  Listener listener = {options, {}};
  cov_generate_options shared = options;
  if (options.on_token != nullptr) {
    shared.on_token = Listener::call;
    shared.context = &listener;
  }
  spread(count, [&](Model& model, int32_t share_count, const Share& share) {
    model.generate(requests + share.first, share_count, shared, outputs + share.first, share);
  });
}

void ParallelModel::replay(const cov_replay_request* requests, int32_t count,
                           const cov_replay_options& options, const cov_replay_output* outputs) {
  spread(count, [&](Model& model, int32_t share_count, const Share& share) {
    model.replay(requests + share.first, share_count, options, outputs + share.first, share);
  });
}

}  // namespace covenant::cuda
