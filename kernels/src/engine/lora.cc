// Adapters: creation, use, merging, optimizer. Their gradients are in lora_backward.cc.
#include "engine/lora.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "engine/model.h"
#include "engine/optimizer.h"

namespace covenant {
namespace {

// Forgets a reversible merge; the parameters stay as they are.
void forget_merge(cov_lora& lora) {
  std::erase(lora.model->merged, &lora);
  lora.merged = false;
  lora.base.free();
}

}  // namespace

const float* effective_matrix(cov_model& model, int64_t offset, int64_t n, int64_t k) {
  const float* base = model.parameters() + offset;
  if (model.lora == nullptr || model.lora->merged) return base;
  float* copy = nullptr;
  for (const cov_lora::Adapter& adapter : model.lora->adapters) {
    if (adapter.offset < offset || adapter.offset >= offset + n * k) continue;
    if (copy == nullptr) {
      copy = model.lora->matrix.reserve(model.memory, n * k);
      std::memcpy(copy, base, static_cast<size_t>(n * k) * sizeof(float));
    }
    model.lora->add_to(adapter, copy + (adapter.offset - offset));
  }
  return copy == nullptr ? base : copy;
}

double lora_optimizer_step(cov_lora& lora, const cov_adamw_options& options) {
  if (lora.merged) throw Failure{cov_error(COV_FAILED_PRECONDITION, kMergedSentence)};
  lora.model->kept.valid = false;
  const double norm = adamw_step(*lora.model,
                                 {lora.state(COV_PARAMETERS), lora.state(COV_GRADIENTS),
                                  lora.state(COV_FIRST_MOMENT), lora.state(COV_SECOND_MOMENT)},
                                 lora.size, lora.step_count + 1, options);
  ++lora.step_count;
  return norm;
}

}  // namespace covenant

cov_lora::cov_lora(cov_model& of, const cov_lora_options& options)
    : LoraPlan(of.layout, options), model(&of), factors(groups.size()) {
  initialise(options.seed, state(COV_PARAMETERS));
}

float* cov_lora::state(cov_buffer which) {
  covenant::Buffer<float>& buffer = buffers[which];
  if (buffer.data() == nullptr) {
    buffer.reserve(model->memory, size);
    std::memset(buffer.data(), 0, static_cast<size_t>(size) * sizeof(float));
  }
  return buffer.data();
}

void cov_lora::clear_gradients() {
  if (buffers[COV_GRADIENTS].data() != nullptr)
    std::memset(buffers[COV_GRADIENTS].data(), 0, static_cast<size_t>(size) * sizeof(float));
}

void cov_lora::add_to(const Adapter& m, float* out) {
  const float* p = state(COV_PARAMETERS);
  model->pool.run(m.n, [&](int64_t row) {
    float* to = out + row * m.k;
    const float* b = p + m.b + row * rank;
    const float* a = p + m.a;
    int64_t r = 0;
    for (; r + 4 <= rank; r += 4, a += 4 * m.k) {  // four at a time read and write W' once
      const float f[4] = {scale * b[r], scale * b[r + 1], scale * b[r + 2], scale * b[r + 3]};
      for (int64_t c = 0; c < m.k; ++c) {
        float sum = to[c] + f[0] * a[c];
        sum += f[1] * a[m.k + c];
        sum += f[2] * a[2 * m.k + c];
        to[c] = sum + f[3] * a[3 * m.k + c];
      }
    }
    for (; r < rank; ++r, a += m.k) {
      const float factor = scale * b[r];
      for (int64_t c = 0; c < m.k; ++c) to[c] += factor * a[c];
    }
  });
}

// ---- C API -------------------------------------------------------------------------------------

extern "C" cov_status cov_lora_create(cov_model* model, const cov_lora_options* options,
                                      cov_lora** lora) {
  if (lora != nullptr) *lora = nullptr;
  if (model == nullptr || options == nullptr || lora == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "model, options and the result pointer must be given");
  return covenant::guarded([&] {
    covenant::check_lora_options(*options);
    auto created = std::make_unique<cov_lora>(*model, *options);
    cov_model_retain(model);
    *lora = created.release();
    return cov_ok();
  });
}

extern "C" void cov_lora_release(cov_lora* lora) {
  if (lora == nullptr) return;
  cov_model* model = lora->model;
  if (model->lora == lora) {
    model->lora = nullptr;
    model->kept.valid = false;
  }
  covenant::forget_merge(*lora);
  delete lora;
  cov_model_release(model);
}

extern "C" cov_status cov_model_use_lora(cov_model* model, cov_lora* lora) {
  if (model == nullptr || (lora != nullptr && lora->model != model))
    return cov_error(COV_INVALID_ARGUMENT, "the adapters belong to another model");
  if (model->lora != lora) model->kept.valid = false;
  model->lora = lora;
  return cov_ok();
}

extern "C" cov_status cov_lora_buffer(cov_lora* lora, int32_t which, float** data,
                                      uint64_t* length) {
  if (lora == nullptr || data == nullptr || length == nullptr || which < COV_PARAMETERS ||
      which > COV_SECOND_MOMENT)
    return cov_error(COV_INVALID_ARGUMENT, "unknown buffer or null pointer");
  return covenant::guarded([&] {
    *data = lora->state(static_cast<cov_buffer>(which));
    *length = static_cast<uint64_t>(lora->size);
    return cov_ok();
  });
}

extern "C" int64_t cov_lora_step_count(const cov_lora* lora) {
  return lora == nullptr ? 0 : lora->step_count;
}

extern "C" cov_status cov_lora_set_step_count(cov_lora* lora, int64_t count) {
  if (lora == nullptr || count < 0)
    return cov_error(COV_INVALID_ARGUMENT, "the step count must not be negative");
  lora->step_count = count;
  return cov_ok();
}

extern "C" uint64_t cov_lora_memory_bytes(const cov_lora* lora) {
  if (lora == nullptr) return 0;
  const auto bytes = [](const auto& buffer) {
    return static_cast<uint64_t>(buffer.count()) * sizeof(buffer[0]);
  };
  uint64_t sum = bytes(lora->matrix) + bytes(lora->base) + bytes(lora->packed) + bytes(lora->work);
  for (const covenant::Buffer<float>& buffer : lora->buffers) sum += bytes(buffer);
  return sum;
}

extern "C" cov_status cov_lora_optimizer_step(cov_lora* lora, const cov_adamw_options* options,
                                              float* gradient_norm) {
  if (lora == nullptr) return cov_error(COV_INVALID_ARGUMENT, "lora is null");
  return covenant::guarded([&] {
    covenant::check_optimizer(options);
    const double norm = covenant::lora_optimizer_step(*lora, *options);
    if (gradient_norm != nullptr) *gradient_norm = static_cast<float>(norm);
    return cov_ok();
  });
}

extern "C" cov_status cov_lora_merge(cov_lora* lora, int32_t reversible) {
  if (lora == nullptr) return cov_error(COV_INVALID_ARGUMENT, "lora is null");
  if (lora->merged)
    return cov_error(COV_FAILED_PRECONDITION, "the adapters are merged already");
  return covenant::guarded([&] {
    cov_model& model = *lora->model;
    float* parameters = model.state(COV_PARAMETERS);
    float* p = lora->state(COV_PARAMETERS);
    if (reversible != 0) {
      int64_t floats = 0;
      for (const cov_lora::Adapter& m : lora->adapters) floats += m.n * m.k;
      model.merged.reserve(model.merged.size() + 1);
      float* kept = lora->base.reserve(model.memory, floats);
      for (const cov_lora::Adapter& m : lora->adapters) {
        std::memcpy(kept, parameters + m.offset, static_cast<size_t>(m.n * m.k) * sizeof(float));
        kept += m.n * m.k;
      }
      model.merged.push_back(lora);
      lora->merged = true;
    }
    model.kept.valid = false;
    for (const cov_lora::Adapter& m : lora->adapters) {
      lora->add_to(m, parameters + m.offset);
      if (reversible == 0)
        std::memset(p + m.b, 0, static_cast<size_t>(m.n * lora->rank) * sizeof(float));
    }
    return cov_ok();
  });
}

extern "C" cov_status cov_lora_unmerge(cov_lora* lora) {
  if (lora == nullptr) return cov_error(COV_INVALID_ARGUMENT, "lora is null");
  if (!lora->merged)
    return cov_error(COV_FAILED_PRECONDITION, "the adapters are not merged reversibly");
  cov_model& model = *lora->model;
  if (model.merged.back() != lora)
    return cov_error(COV_FAILED_PRECONDITION, "adapters merged later must be unmerged first");
  model.kept.valid = false;
  const float* kept = lora->base.data();
  for (const cov_lora::Adapter& m : lora->adapters) {
    std::memcpy(model.buffers[COV_PARAMETERS].data() + m.offset, kept,
                static_cast<size_t>(m.n * m.k) * sizeof(float));
    kept += m.n * m.k;
  }
  covenant::forget_merge(*lora);
  return cov_ok();
}
