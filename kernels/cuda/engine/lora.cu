// Life of adapters: what they make of the matrices, steps, merging. Their gradients are in lora_backward.cu.
#include "engine/lora.cuh"

#include "engine/lora_add.cuh"

namespace covenant::cuda {
namespace {

std::vector<AdamwRange> ranges(const Slice::Part& part) {
  const auto start = static_cast<int64_t>(part.local), size = static_cast<int64_t>(part.count);
  std::vector<AdamwRange> found;
  for (int64_t first = 0; first < size; first += kAdamwChunk)
    found.push_back({start + first, static_cast<int32_t>(std::min(kAdamwChunk, size - first)), 1});
  return found;
}

LowRank low_rank(const LoraPlan& plan, const LoraPlan::Adapter& m, const float* p) {
  return {m.n, m.k, plan.rank, p + m.a, p + m.b, plan.scale};
}

uint64_t bytes_of(const LoraPlan::Adapter& m) {
  return static_cast<uint64_t>(m.n * m.k) * sizeof(float);
}

}  // namespace

Lora::Lora(Model& model, const cov_lora_options& options)
    : model_(model),
      plan_(model.layout(), options, model.slice().layers_before),
      parameters_(model.device(), part().local + part().count, ranges(part())) {
  starts_.push_back(0);
  for (const LoraPlan::Group& group : plan_.groups)
    starts_.push_back(starts_.back() + static_cast<uint64_t>(group.n * group.k));
  std::vector<float> initial(static_cast<size_t>(plan_.size));
  plan_.initialise(options.seed, initial.data());
  write(COV_PARAMETERS, 0, initial.size(), initial.data());
}

Lora::~Lora() {
  (void)guard([&] {
    model_.device().activate();
    model_.device().finish();
  });
  if (model_.lora() == this) model_.use_lora(nullptr);
  std::erase(model_.merged_adapters, this);
}

void Lora::write(cov_buffer which, uint64_t offset, uint64_t count, const float* values) {
  parameters_.write(which, part().local + offset, count, values);
  if (which == COV_PARAMETERS) touch();
}

void Lora::require_unmerged() const {
  if (merged_) raise(COV_FAILED_PRECONDITION, kMergedSentence);
}

void Lora::compose(uint16_t* shadow) {
  if (fresh_) return;
  if (shadow == nullptr && matrices_.data() == nullptr)
    matrices_ = Buffer<float>(model_.device(), starts_.back());
  const float* const base = model_.state(COV_PARAMETERS);
  const float* const p = state(COV_PARAMETERS);
  for (size_t g = 0; g < plan_.groups.size(); ++g) {
    const LoraPlan::Group& group = plan_.groups[g];
    if (shadow == nullptr) {
      compose_group(group, matrices_.data() + starts_[g]);
      continue;
    }
    for (size_t i = group.first; i < group.first + group.count; ++i) {
      const LoraPlan::Adapter& m = plan_.adapters[i];
      add_low_rank(model_.stream(), low_rank(plan_, m, p), base + m.offset, shadow + m.offset);
    }
  }
  fresh_ = true;
}

void Lora::compose_group(const LoraPlan::Group& group, float* to) {
  const float* const base = model_.state(COV_PARAMETERS);
  const float* const p = state(COV_PARAMETERS);
  model_.device().copy(to, base + group.offset, static_cast<uint64_t>(group.n * group.k) * sizeof(float));
  for (size_t i = group.first; i < group.first + group.count; ++i) {
    const LoraPlan::Adapter& m = plan_.adapters[i];
    add_low_rank(model_.stream(), low_rank(plan_, m, p), base + m.offset, to + (m.offset - group.offset));
  }
}

bool Lora::compose_matrix(int64_t offset, float* to) {
  const int64_t found = plan_.group_at(offset);
  if (found < 0) return false;
  compose_group(plan_.groups[static_cast<size_t>(found)], to);
  return true;
}

const float* Lora::matrix(int64_t offset) const {
  const int64_t found = plan_.group_at(offset);
  return found < 0 ? nullptr : matrices_.data() + starts_[static_cast<size_t>(found)];
}

double Lora::optimizer_step(const cov_adamw_options& options) {
  require_unmerged();
  model_.drop_kept();
  parameters_.prepare_step();
  const double norm = parameters_.gradient_norm();
  apply_gradients(options, norm);
  model_.device().finish();
  return norm;
}

void Lora::apply_gradients(const cov_adamw_options& options, double norm) {
  touch();
  parameters_.apply_gradients(options, norm, nullptr);
}

void Lora::add_to_model() {
  float* const parameters = model_.state(COV_PARAMETERS);
  for (const LoraPlan::Adapter& m : plan_.adapters)
    add_low_rank(model_.stream(), low_rank(plan_, m, state(COV_PARAMETERS)),
                 parameters + m.offset, parameters + m.offset);
}

void Lora::prepare_merge(bool reversible) {
  if (merged_) raise(COV_FAILED_PRECONDITION, "the adapters are merged already");
  if (!reversible) return;
  uint64_t floats = 0;
  for (const LoraPlan::Adapter& m : plan_.adapters) floats += static_cast<uint64_t>(m.n * m.k);
  if (base_.data() == nullptr) base_ = Buffer<float>(model_.device(), floats);
  model_.merged_adapters.reserve(model_.merged_adapters.size() + 1);
}

void Lora::drop_unmerged() {
  if (!merged_) base_ = Buffer<float>();
}

void Lora::merge(bool reversible) {
  prepare_merge(reversible);
  Device& device = model_.device();
  if (reversible) {
    float* kept = base_.data();
    for (const LoraPlan::Adapter& m : plan_.adapters) {
      device.copy(kept, model_.state(COV_PARAMETERS) + m.offset, bytes_of(m));
      kept += m.n * m.k;
    }
    model_.merged_adapters.push_back(this);
    merged_ = true;
  }
  model_.drop_kept();
  model_.touch();
  touch();
  add_to_model();
  if (!reversible) {
    float* const p = state(COV_PARAMETERS);
    for (const LoraPlan::Adapter& m : plan_.adapters)
      device.fill_zero(p + m.b, static_cast<uint64_t>(m.n * plan_.rank) * sizeof(float));
  }
  device.finish();
}

void Lora::require_last_merged() const {
  if (!merged_) raise(COV_FAILED_PRECONDITION, "the adapters are not merged reversibly");
  if (model_.merged_adapters.back() != this)
    raise(COV_FAILED_PRECONDITION, "adapters merged later must be unmerged first");
}

void Lora::unmerge() {
  require_last_merged();
  Device& device = model_.device();
  model_.drop_kept();
  model_.touch();
  touch();
  const float* kept = base_.data();
  for (const LoraPlan::Adapter& m : plan_.adapters) {
    device.copy(model_.state(COV_PARAMETERS) + m.offset, kept, bytes_of(m));
    kept += m.n * m.k;
  }
  device.finish();
  base_ = Buffer<float>();
  model_.merged_adapters.pop_back();
  merged_ = false;
}

}  // namespace covenant::cuda
