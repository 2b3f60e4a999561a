// dB = s dW A^T, dA = s B^T dW from the gradient dW of the whole matrix.
#include "engine/lora.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "covenant/rng.h"
#include "engine/isa/table.h"
#include "engine/model.h"
#include "engine/optimizer.h"

namespace covenant {
namespace {

constexpr int64_t kColumns = 256;  // of a gradient of A per task: no two tasks share an element
constexpr int32_t kRankMax = 1024;

void initialise(cov_lora& lora, uint64_t seed) {
  const uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  float* p = lora.state(COV_PARAMETERS);
  uint32_t matrix = 0;
  for (const cov_lora::Adapter& adapter : lora.adapters) {
    const float bound = 1.0f / std::sqrt(static_cast<float>(adapter.k));
    for (int64_t i = 0; i < lora.rank * adapter.k; ++i) {
      const uint32_t counter[4] = {static_cast<uint32_t>(i), matrix, 0x4c6f5241u, 0};
      uint32_t out[4];
      cov_philox4x32(key, counter, out);
      const float unit = static_cast<float>(out[0] >> 8) * (1.0f / 16777216.0f);
      p[adapter.a + i] = (2.0f * unit - 1.0f) * bound;
    }
    ++matrix;
  }
}

void collect(cov_lora& lora) {
  cov_model& model = *lora.model;
  const KernelTable& kernel = kernels();
  const float* gradients = model.state(COV_GRADIENTS);
  const float* p = lora.state(COV_PARAMETERS);
  float* g = lora.state(COV_GRADIENTS);
  const int64_t rank = lora.rank;
  for (const cov_lora::Adapter& m : lora.adapters) {
    const float* dw = gradients + m.offset;
    model.pool.run(m.n, [&](int64_t row) {
      for (int64_t r = 0; r < rank; ++r)
        g[m.b + row * rank + r] +=
            lora.scale * kernel.dot(dw + row * m.k, p + m.a + r * m.k, m.k);
    });
    model.pool.run((m.k + kColumns - 1) / kColumns, [&](int64_t task) {
      const int64_t first = task * kColumns, last = std::min(m.k, first + kColumns);
      for (int64_t row = 0; row < m.n; ++row)
        for (int64_t r = 0; r < rank; ++r) {
          const float factor = lora.scale * p[m.b + row * rank + r];
          float* da = g + m.a + r * m.k;
          for (int64_t c = first; c < last; ++c) da[c] += factor * dw[row * m.k + c];
        }
    });
  }
  clear_gradients(model);
}

}  // namespace

const float* effective_matrix(cov_model& model, int64_t offset, int64_t n, int64_t k) {
  const float* base = model.parameters() + offset;
  if (model.lora == nullptr) return base;
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

}  // namespace covenant

float* cov_lora::state(cov_buffer which) {
  covenant::Buffer<float>& buffer = buffers[which];
  if (buffer.data() == nullptr) {
    buffer.reserve(model->memory, size);
    std::memset(buffer.data(), 0, static_cast<size_t>(size) * sizeof(float));
  }
  return buffer.data();
}

void cov_lora::add_to(const Adapter& m, float* out) {
  const float* p = state(COV_PARAMETERS);
  model->pool.run(m.n, [&](int64_t row) {
    float* to = out + row * m.k;
    for (int64_t r = 0; r < rank; ++r) {
      const float factor = scale * p[m.b + row * rank + r];
      const float* a = p + m.a + r * m.k;
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
  if (options->rank < 1 || options->rank > covenant::kRankMax)
    return cov_error(COV_INVALID_ARGUMENT, "rank is %d, must be in [1, %d]", options->rank,
                     covenant::kRankMax);
  if (!std::isfinite(options->alpha) || options->alpha == 0.0f)
    return cov_error(COV_INVALID_ARGUMENT, "alpha must be finite and not 0");
  if (options->targets < 1 || options->targets > 127)
    return cov_error(COV_INVALID_ARGUMENT, "targets is %d, no set of matrices", options->targets);
  return covenant::guarded([&] {
    const covenant::Layout& l = model->layout;
    auto created = std::make_unique<cov_lora>();
    created->model = model;
    created->rank = options->rank;
    created->scale = options->alpha / static_cast<float>(options->rank);
    const int64_t query = l.attention.query_width(), kv = l.attention.kv_heads * l.attention.dim;
    for (int64_t layer = 0; layer < l.layers; ++layer) {
      const int64_t matrices[7][3] = {{l.qkv(layer), query, l.d},
                                      {l.qkv(layer) + query * l.d, kv, l.d},
                                      {l.qkv(layer) + (query + kv) * l.d, kv, l.d},
                                      {l.o(layer), l.d, l.d},
                                      {l.gate_up(layer), l.f, l.d},
                                      {l.gate_up(layer) + l.f * l.d, l.f, l.d},
                                      {l.down(layer), l.d, l.f}};
      for (int target = 0; target < 7; ++target) {
        if ((options->targets >> target & 1) == 0) continue;
        const int64_t* m = matrices[target];
        const int64_t a = created->size, b = a + created->rank * m[2];
        created->adapters.push_back({m[0], m[1], m[2], a, b});
        created->size = b + m[1] * created->rank;
      }
    }
    covenant::initialise(*created, options->seed);
    cov_model_retain(model);
    *lora = created.release();
    return cov_ok();
  });
}

extern "C" void cov_lora_release(cov_lora* lora) {
  if (lora == nullptr) return;
  cov_model* model = lora->model;
  if (model->lora == lora) model->lora = nullptr;
  delete lora;
  cov_model_release(model);
}

extern "C" cov_status cov_model_use_lora(cov_model* model, cov_lora* lora) {
  if (model == nullptr || (lora != nullptr && lora->model != model))
    return cov_error(COV_INVALID_ARGUMENT, "the adapters belong to another model");
  model->lora = lora;
  model->kept.valid = false;
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

extern "C" int64_t cov_lora_step_count(const cov_lora* lora) { return lora->step_count; }

extern "C" cov_status cov_lora_set_step_count(cov_lora* lora, int64_t count) {
  if (lora == nullptr || count < 0)
    return cov_error(COV_INVALID_ARGUMENT, "the step count must not be negative");
  lora->step_count = count;
  return cov_ok();
}

extern "C" cov_status cov_lora_collect(cov_lora* lora) {
  if (lora == nullptr || lora->model->lora != lora)
    return cov_error(COV_FAILED_PRECONDITION, "the adapters are not in use");
  return covenant::guarded([&] {
    covenant::collect(*lora);
    return cov_ok();
  });
}

extern "C" cov_status cov_lora_optimizer_step(cov_lora* lora, const cov_adamw_options* options,
                                              float* gradient_norm) {
  if (lora == nullptr) return cov_error(COV_INVALID_ARGUMENT, "lora is null");
  return covenant::guarded([&] {
    covenant::check_optimizer(options);
    lora->model->kept.valid = false;
    const double norm = covenant::adamw_step(
        *lora->model,
        {lora->state(COV_PARAMETERS), lora->state(COV_GRADIENTS), lora->state(COV_FIRST_MOMENT),
         lora->state(COV_SECOND_MOMENT)},
        lora->size, lora->step_count + 1, *options);
    ++lora->step_count;
    if (gradient_norm != nullptr) *gradient_norm = static_cast<float>(norm);
    return cov_ok();
  });
}

extern "C" cov_status cov_lora_merge(cov_lora* lora) {
  if (lora == nullptr) return cov_error(COV_INVALID_ARGUMENT, "lora is null");
  return covenant::guarded([&] {
    float* parameters = lora->model->state(COV_PARAMETERS);
    float* p = lora->state(COV_PARAMETERS);
    lora->model->kept.valid = false;
    for (const cov_lora::Adapter& m : lora->adapters) {
      lora->add_to(m, parameters + m.offset);
      std::memset(p + m.b, 0, static_cast<size_t>(m.n * lora->rank) * sizeof(float));
    }
    return cov_ok();
  });
}
