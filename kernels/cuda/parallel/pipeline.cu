#include "parallel/pipeline.h"

#include <algorithm>

#include "engine/embedding.cuh"
#include "parallel/split.h"

namespace covenant::cuda {
namespace {

constexpr int64_t kMicroBatchesEach = 4;  // micro-batches for each stage that keep the pipeline filled

// Room for `count`; what was in it is lost when it grows.
void grow(Device& device, Buffer<float>& buffer, uint64_t count) {
  if (buffer.count() >= count) return;
  buffer = Buffer<float>();
  buffer = Buffer<float>(device, count);
}

}  // namespace

Pipeline::Pipeline(const int32_t* devices, int32_t stages, uint64_t memory_limit_bytes,
                   const cov_model_shape& shape, Compute compute)
    : tied_(shape.tie_word_embeddings != 0), bf16_(compute == Compute::kBf16) {
  std::vector<Slice> slices = split(shape, compute, stages);
  for (size_t i = 0; i < slices.size(); ++i)
    stages_.push_back(std::make_unique<Stage>(devices[i], memory_limit_bytes, shape,
                                              std::move(slices[i])));
}

std::vector<Member> Pipeline::members() const {
  std::vector<Member> members;
  for (const auto& stage : stages_) members.push_back({&stage->device, &stage->side});
  return members;
}

void Pipeline::set_communicator(std::unique_ptr<Communicator> communicator) {
  communicator_ = std::move(communicator);
}

void Pipeline::load(const cov_batch& batch, int64_t first, int64_t count, Pass pass,
                    int32_t top_count) {
  const int64_t stages = static_cast<int64_t>(stages_.size());
  // In fp32 the groups of a single device, whose bits then come out.
  int64_t each = last().model.group_sequences(batch.sequence_length);
  if (bf16_ && stages > 1) {
    const int64_t wanted = kMicroBatchesEach * stages;
    each = std::clamp<int64_t>((count + wanted - 1) / wanted, 1, each);
  }
  micro_batches_ = static_cast<size_t>((count + each - 1) / each);
  score_offsets_.assign(1, 0);
  for (size_t s = 0; s < stages_.size(); ++s) {
    Stage& stage = *stages_[s];
    stage.device.activate();
    stage.groups.clear();
    stage.groups.resize(micro_batches_);
    for (size_t m = 0; m < micro_batches_; ++m) {
      const int64_t at = static_cast<int64_t>(m) * each;
      make_group(stage.device, batch, first + at, std::min(each, count - at), stage.groups[m]);
      if (s == 0)
        score_offsets_.push_back(score_offsets_.back() +
                                 static_cast<uint64_t>(stage.groups[m].scored));
    }
    const size_t from_here = stages_.size() - s;
    const size_t wanted = pass == Pass::kTrain ? from_here : pass == Pass::kForward ? 2 : micro_batches_;
    stage.reserve(pass, std::max<size_t>(1, std::min(micro_batches_, wanted)));
  }
  Device& device = last().device;
  device.activate();
  scores_.reserve(device, score_offsets_.back(), top_count);
  if (!remote_embedding()) return;
  grow(device, embedded_, last().row_floats());
  if (pass != Pass::kForward && trains_embedding())
    grow(device, embedding_gradients_, micro_batches_ * last().row_floats());
  while (embedding_arrived_.size() < micro_batches_) embedding_arrived_.emplace_back();
}

void Pipeline::start(Pass pass, float inverse_temperature, const float* coefficients,
                     float constant) {
  pass_ = pass;
  inverse_temperature_ = inverse_temperature;
  constant_ = constant;
  use_coefficients_ = coefficients != nullptr;
  for (const auto& stage : stages_) {
    stage->device.activate();
    stage->forwards = pass == Pass::kBackward ? micro_batches_ : 0;
    stage->backwards = 0;
    stage->model.prepare(0);
    if (pass == Pass::kBackward) stage->model.trained().prepare_step();
    // What was queued before, such as cleared gradients, comes before what the side stream does.
    stage->computed.record(stage->device.stream());
    stage->computed.wait(stage->side.stream());
  }
  Stage& stage = last();
  stage.model.clear_non_finite();
  if (!use_coefficients_) return;
  std::vector<float> values(score_offsets_.back());
  for (size_t m = 0; m < micro_batches_; ++m)
    for (size_t i = 0; i < stage.groups[m].places.size(); ++i)
      values[score_offsets_[m] + i] = coefficients[stage.groups[m].places[i]];
  grow(stage.device, coefficients_, values.size());
  stage.device.upload(coefficients_.data(), values.data(), values.size() * sizeof(float));
}

bool Pipeline::forward_ready(size_t s) const {
  const size_t m = stages_[s]->forwards;
  if (m == micro_batches_ || pass_ == Pass::kBackward) return false;
  if (s > 0 && stages_[s - 1]->forwards <= m) return false;
  if (s + 1 == stages_.size()) return true;
  // The next stage's slot, which this one writes to, must have been given free.
  const Stage& next = *stages_[s + 1];
  const size_t done = pass_ == Pass::kTrain ? next.backwards : next.forwards;
  return m < done + next.slots.size();
}

bool Pipeline::backward_ready(size_t s) const {
  const size_t m = stages_[s]->backwards;
  if (m == micro_batches_ || m >= stages_[s]->forwards) return false;
  if (pass_ != Pass::kTrain && pass_ != Pass::kBackward) return false;
  if (s + 1 < stages_.size() && stages_[s + 1]->backwards <= m) return false;
  if (s + 1 == stages_.size() && in_order() && stages_[0]->backwards < m) return false;
  return s == 0 || m < stages_[s - 1]->backwards + stages_[s - 1]->gradients.size();
}

// 1F1B: a stage goes backward when it holds as many micro-batches as it has slots.
bool Pipeline::backward_next(size_t s) const {
  const Stage& stage = *stages_[s];
  return stage.forwards == micro_batches_ || stage.forwards - stage.backwards >= stage.slots.size();
}

bool Pipeline::advance() {
  bool moved = false;
  for (size_t s = 0; s < stages_.size(); ++s) {
    const bool backwards = backward_next(s) && pass_ != Pass::kForward && pass_ != Pass::kKeepingForward;
    if (backwards ? !backward_ready(s) : !forward_ready(s)) continue;
    stages_[s]->device.activate();
    if (backwards)
      backward(s);
    else
      forward(s);
    moved = true;
  }
  if (moved) return true;
  const bool with_backward = pass_ == Pass::kTrain || pass_ == Pass::kBackward;
  for (const auto& stage : stages_)
    if ((with_backward ? stage->backwards : stage->forwards) != micro_batches_)
      raise(COV_INTERNAL, "the pipeline's schedule does not go on");
  if (with_backward && trains_embedding() && !in_order())
    for (size_t m = 0; m < micro_batches_; ++m) add_embedding(m);
  return false;
}

void Pipeline::forward(size_t s) {
  Stage& stage = *stages_[s];
  const size_t m = stage.forwards++;
  const Group& group = stage.groups[m];
  Stage::Slot& slot = stage.slot(m);
  Model& model = stage.model;
  if (s > 0) {
    slot.arrived.wait(stage.device.stream());
  } else if (remote_embedding()) {
    embed_rows(m);
  } else {
    embed(stage.device.stream(), model.state(COV_PARAMETERS), group.tokens, group.rows(),
          model.layout().d, slot.activations.layers[0].x);
  }
  model.forward_layers(group, slot.activations);
  if (s + 1 == stages_.size()) {
    if (pass_ != Pass::kTrain) score(m, false, nullptr);
    if (pass_ == Pass::kForward) slot.free.record(stage.device.stream());
    return;
  }
  Stage& next = *stages_[s + 1];
  Stage::Slot& target = next.slot(m);
  stage.computed.record(stage.device.stream());
  stage.computed.wait(stage.side.stream());
  next.device.activate();
  target.free.wait(next.side.stream());
  communicator_->transfer(s, slot.activations.last, s + 1, target.activations.layers[0].x,
                          static_cast<uint64_t>(group.rows() * model.layout().d) * sizeof(float));
  next.device.activate();
  target.arrived.record(next.side.stream());
  stage.device.activate();
  if (pass_ == Pass::kForward) slot.free.record(stage.side.stream());
}

// Rows of the embedding, from the last stage to the first.
void Pipeline::embed_rows(size_t m) {
  Stage& first = *stages_[0];
  Stage& owner = last();
  const Group& group = owner.groups[m];
  Stage::Slot& slot = first.slot(m);
  slot.free.wait(first.side.stream());
  owner.device.activate();
  embed(owner.side.stream(), owner.model.state(COV_PARAMETERS), group.tokens, group.rows(),
        owner.model.layout().d, embedded_.data());
  communicator_->transfer(stages_.size() - 1, embedded_.data(), 0, slot.activations.layers[0].x,
                          static_cast<uint64_t>(group.rows() * owner.model.layout().d) *
                              sizeof(float));
  first.device.activate();
  slot.arrived.record(first.side.stream());
  slot.arrived.wait(first.device.stream());
}

void Pipeline::score(size_t m, bool backward, float* dx) {
  Stage& stage = last();
  const uint64_t at = score_offsets_[m];
  stage.model.head(stage.groups[m], stage.slot(m).activations, inverse_temperature_,
                   scores_.from(at), backward,
                   use_coefficients_ ? coefficients_.data() + at : nullptr, constant_, dx);
}

void Pipeline::backward(size_t s) {
  Stage& stage = *stages_[s];
  const size_t m = stage.backwards++;
  const Group& group = stage.groups[m];
  Stage::Gradient& gradient = stage.gradient(m);
  const uint64_t bytes =
      static_cast<uint64_t>(group.rows() * stage.model.layout().d) * sizeof(float);
  float* const dx = gradient.values.data();
  if (s + 1 == stages_.size()) {
    gradient.free.wait(stage.device.stream());
    stage.device.fill_zero(dx, bytes);
    score(m, true, dx);
  } else {
    gradient.arrived.wait(stage.device.stream());
  }
  stage.model.backward_layers(group, stage.slot(m).activations, dx);
  stage.slot(m).free.record(stage.device.stream());
  if (s == 0) {
    embed_gradient(m);
    return;
  }
  Stage& next = *stages_[s - 1];
  Stage::Gradient& target = next.gradient(m);
  stage.computed.record(stage.device.stream());
  stage.computed.wait(stage.side.stream());
  next.device.activate();
  target.free.wait(next.side.stream());
  communicator_->transfer(s, dx, s - 1, target.values.data(), bytes);
  next.device.activate();
  target.arrived.record(next.side.stream());
  stage.device.activate();
  gradient.free.record(stage.side.stream());
}

// The gradient of the rows of the embedding, to where the embedding is.
void Pipeline::embed_gradient(size_t m) {
  Stage& first = *stages_[0];
  Stage::Gradient& gradient = first.gradient(m);
  const Group& group = first.groups[m];
  if (!trains_embedding()) {
    if (float* const g = first.model.gradient(0); g != nullptr && !remote_embedding())
      embed_backward(first.device.stream(), gradient.values.data(), group.bucket_tokens,
                     group.bucket_starts, group.bucket_rows, group.buckets, first.model.layout().d, g);
    gradient.free.record(first.device.stream());
    return;
  }
  Stage& owner = last();
  first.computed.record(first.device.stream());
  first.computed.wait(first.side.stream());
  communicator_->transfer(0, gradient.values.data(), stages_.size() - 1,
                          embedding_gradients_.data() + m * owner.row_floats(),
                          static_cast<uint64_t>(group.rows() * first.model.layout().d) *
                              sizeof(float));
  first.device.activate();
  gradient.free.record(first.side.stream());
  owner.device.activate();
  embedding_arrived_[m].record(owner.side.stream());
  if (in_order()) add_embedding(m);
}

void Pipeline::add_embedding(size_t m) {
  Stage& owner = last();
  const Group& group = owner.groups[m];
  owner.device.activate();
  embedding_arrived_[m].wait(owner.device.stream());
  embed_backward(owner.device.stream(), embedding_gradients_.data() + m * owner.row_floats(),
                 group.bucket_tokens, group.bucket_starts, group.bucket_rows, group.buckets,
                 owner.model.layout().d, owner.model.state(COV_GRADIENTS));
}

void Pipeline::collect(const cov_forward_output& output) {
  for (const auto& stage : stages_) {
    stage->device.activate();
    stage->side.finish();
    stage->device.finish();
  }
  Stage& stage = last();
  stage.device.activate();
  scores_.download(stage.device, score_offsets_.back());
  stage.model.check_finite();
  for (size_t m = 0; m < micro_batches_; ++m)
    scores_.place(score_offsets_[m], stage.groups[m].places, output);
}

void Pipeline::drop_kept() {
  for (const auto& stage : stages_) {
    stage->device.activate();
    stage->slots.clear();
  }
}

void Pipeline::drop_memory() {
  drop_kept();
  for (const auto& stage : stages_) {
    stage->device.activate();
    stage->groups.clear();
    stage->gradients.clear();
    stage->device.scratch().shrink();
  }
  scores_ = Scores();
  for (Buffer<float>* const buffer : {&coefficients_, &embedded_, &embedding_gradients_})
    *buffer = Buffer<float>();
  embedding_arrived_.clear();
}

}  // namespace covenant::cuda
