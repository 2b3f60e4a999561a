#include "parallel/parallel_model.h"

#include <algorithm>

#include "engine/head.h"
#include "parallel/parallel_lora.h"

namespace covenant::cuda {

ParallelModel::ParallelModel(const int32_t* devices, int32_t count, const cov_model_shape& shape,
                             const cov_parallel_options& options)
    : stages_(static_cast<size_t>(options.stages)) {
  for (int32_t at = 0; at < count; at += options.stages) {
    replicas_.push_back(std::make_unique<Pipeline>(devices + at, options.stages,
                                                   options.memory_limit_bytes, shape,
                                                   static_cast<Compute>(options.compute)));
    Spread::Replica pieces;
    for (const auto& stage : replicas_.back()->stages())
      pieces.push_back({stage->device, stage->model.parameters(), stage->model.slice().parts});
    spread_.add(std::move(pieces));
  }
  connect_devices(options.collectives);
}

ParallelModel::~ParallelModel() {
  // Nothing may run on any of the devices when the first of them goes.
  (void)guard([&] { finish(); });
}

void ParallelModel::connect_devices(int32_t collectives) {
  std::string found;
  const bool nccl = collectives == COV_COLLECTIVES_NCCL && nccl_available(&found);
  const auto make = [&](const std::vector<Member>& members) {
    return nccl ? make_nccl(members) : make_ordered(members);
  };
  for (const auto& replica : replicas_)
    if (stages_ > 1) replica->set_communicator(make(replica->members()));
  for (size_t s = 0; s < stages_ && replicas_.size() > 1; ++s) {
    std::vector<Member> ring;
    for (const auto& replica : replicas_) ring.push_back(replica->members()[s]);
    rings_.push_back(make(ring));
  }
  const auto several = [](size_t count, const char* what) {
    return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
  };
  report_ = several(replicas_.size(), "replica") + " of " + several(stages_, "stage") + ", " +
            (nccl ? found : "sums in the order of the devices");
  if (!nccl && !found.empty()) report_ += "; NCCL is not used: " + found;
}

void ParallelModel::require_open() const {
  if (!closed_.empty())
    raise(COV_FAILED_PRECONDITION, "the model is closed since a call failed: %s", closed_.c_str());
}

// Runs a call. After a failure the devices are brought to rest and the gradients that the call has changed are
// cleared (`clears`, may be null); where that does not work, or parameters were being written, the model is
// closed.
void ParallelModel::attempt(Spread* clears, const std::function<void()>& body) {
  require_open();
  const cov_status status = guard(body);
  if (status.code == COV_OK) return;
  const cov_status rest = guard([&] {
    finish();
    // A pass that was too large leaves nothing behind for the next one to trip over.
    for (const auto& replica : replicas_) replica->drop_memory();
    kept_positions_ = 0;
    if (clears != nullptr) clears->clear_gradients();
  });
  if (changing_ || rest.code != COV_OK) closed_ = status.message;
  throw Failure{status};
}

void ParallelModel::change(const std::function<void()>& body) {
  finish();
  changing_ = true;
  body();
  finish();
  changing_ = false;
}

void ParallelModel::drop_kept() {
  kept_positions_ = 0;
  for (const auto& replica : replicas_) replica->drop_kept();
}

Spread* ParallelModel::trained() { return lora_ != nullptr ? &lora_->spread_ : &spread_; }

void ParallelModel::use_lora(ParallelLora* lora) {
  if (lora == lora_) return;
  attempt(nullptr, [&] {
    finish();
    drop_kept();
    for (size_t r = 0; r < replicas_.size(); ++r)
      for (size_t s = 0; s < stages_; ++s)
        replicas_[r]->stages()[s]->model.use_lora(lora == nullptr ? nullptr : &lora->at(r, s));
    lora_ = lora;
  });
}

void ParallelModel::finish() {
  for (const auto& replica : replicas_)
    for (const auto& stage : replica->stages()) {
      stage->device.activate();
      stage->side.finish();
      stage->device.finish();
    }
}

void ParallelModel::read(cov_buffer which, uint64_t offset, uint64_t count, float* values) {
  attempt(nullptr, [&] {
    if (which == COV_GRADIENTS) spread_.collect_gradients();
    spread_.read(0, which, offset, count, values);
  });
}

void ParallelModel::read_replica(int32_t replica, cov_buffer which, uint64_t offset, uint64_t count,
                                 float* values) {
  attempt(nullptr,
          [&] { spread_.read(static_cast<size_t>(replica), which, offset, count, values); });
}

void ParallelModel::write(cov_buffer which, uint64_t offset, uint64_t count, const float* values) {
  attempt(nullptr, [&] {
    if (which == COV_PARAMETERS)
      for (const auto& replica : replicas_)
        for (const auto& stage : replica->stages()) stage->model.touch();
    spread_.write(which, offset, count, values);
  });
}

// Each replica gets its share of the sequences.
void ParallelModel::load(const cov_batch& batch, Pass pass, int32_t top_count) {
  const int64_t sequences = batch.sequences, count = static_cast<int64_t>(replicas_.size());
  for (int64_t r = 0; r < count; ++r) {
    const int64_t first = sequences * r / count, after = sequences * (r + 1) / count;
    replicas_[static_cast<size_t>(r)]->load(batch, first, after - first, pass, top_count);
  }
}

void ParallelModel::run(Pass pass, float inverse_temperature, const float* coefficients,
                        float constant) {
  for (const auto& replica : replicas_)
    replica->start(pass, inverse_temperature, coefficients, constant);
  // In turn, so that no device waits for the queue of another one.
  std::vector<Pipeline*> busy;
  for (const auto& replica : replicas_) busy.push_back(replica.get());
  while (!busy.empty()) {
    const auto complete = [](Pipeline* replica) { return !replica->advance(); };
    busy.erase(std::remove_if(busy.begin(), busy.end(), complete), busy.end());
  }
}

void ParallelModel::collect(const cov_forward_output& output) {
  for (const auto& replica : replicas_) replica->collect(output);
}

void ParallelModel::forward(const cov_batch& batch, const cov_forward_options& options,
                            const cov_forward_output& output) {
  const int64_t count = int64_t{batch.sequences} * batch.sequence_length;
  const float inverse = 1.0f / (options.temperature == 0.0f ? 1.0f : options.temperature);
  const Pass pass = options.keep_activations ? Pass::kKeepingForward : Pass::kForward;
  kept_positions_ = 0;
  clear_forward_output(count, options.top_count, output);
  attempt(nullptr, [&] {
    load(batch, pass, options.top_count);
    run(pass, inverse, nullptr, 0.0f);
    collect(output);
  });
  if (!options.keep_activations) return;
  kept_positions_ = static_cast<uint64_t>(count);
  kept_inverse_temperature_ = inverse;
}

void ParallelModel::backward(const float* coefficients, uint64_t count) {
  require_open();
  if (kept_positions_ == 0)
    raise(COV_FAILED_PRECONDITION, "backward needs a forward with keep_activations");
  if (count != kept_positions_)
    raise(COV_INVALID_ARGUMENT, "%llu coefficients given, the kept forward has %llu",
          static_cast<unsigned long long>(count), static_cast<unsigned long long>(kept_positions_));
  replicas_[0]->stages()[0]->model.require_trainable();
  kept_positions_ = 0;
  attempt(trained(), [&] {
    run(Pass::kBackward, kept_inverse_temperature_, coefficients, 0.0f);
    collect({});
    for (const auto& replica : replicas_) replica->drop_kept();
  });
}

// From the gradients of all replicas.
double ParallelModel::step(const cov_adamw_options& options) {
  spread_.sum_gradients();
  const double found = spread_.gradient_norm();
  change([&] {
    for (const auto& replica : replicas_)
      for (const auto& stage : replica->stages()) {
        stage->device.activate();
        stage->model.apply_gradients(options, found);
      }
  });
  return found;
}

double ParallelModel::optimizer_step(const cov_adamw_options& options) {
  double found = 0.0;
  replicas_[0]->stages()[0]->model.require_no_lora();
  attempt(&spread_, [&] {
    drop_kept();
    spread_.prepare_step();
    found = step(options);
  });
  return found;
}

void ParallelModel::train_step(const cov_batch& batch, const cov_adamw_options& options,
                               double* loss, double* norm) {
  const int64_t count = int64_t{batch.sequences} * batch.sequence_length;
  const int64_t scored = std::count_if(batch.targets, batch.targets + count,
                                       [](int32_t target) { return target >= 0; });
  if (scored == 0) raise(COV_INVALID_ARGUMENT, "no position of the batch is scored");
  replicas_[0]->stages()[0]->model.require_trainable();
  kept_positions_ = 0;
  std::vector<float> log_probs(static_cast<size_t>(count), 0.0f);
  attempt(trained(), [&] {
    load(batch, Pass::kTrain);
    run(Pass::kTrain, 1.0f, nullptr, static_cast<float>(-1.0 / static_cast<double>(scored)));
    collect({log_probs.data(), nullptr, nullptr, nullptr});
    *norm = lora_ != nullptr ? lora_->step(options) : step(options);
  });
  double sum = 0.0;
  for (const float log_prob : log_probs) sum -= static_cast<double>(log_prob);
  *loss = sum / static_cast<double>(scored);
}

}  // namespace covenant::cuda
