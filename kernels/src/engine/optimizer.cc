// AdamW with decoupled weight decay, as torch.optim.AdamW. Tier A: equal gradients give equal bits
// everywhere, since only IEEE add, multiply, divide, square root and fused multiply-add are used.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/isa/table.h"
#include "engine/optimizer.h"

namespace covenant {
namespace {

constexpr int64_t kChunk = 1 << 14;  // parameters per task

// beta^n by squaring: the same bits everywhere, unlike the C library's pow.
double power(double base, int64_t exponent) {
  double result = 1.0;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

double gradient_norm(cov_model& model, const float* gradients, int64_t count) {
  const KernelTable& kernel = kernels();
  std::vector<double> sums(static_cast<size_t>((count + kChunk - 1) / kChunk));
  model.pool.run(static_cast<int64_t>(sums.size()), [&](int64_t task) {
    const int64_t first = task * kChunk;
    sums[static_cast<size_t>(task)] =
        kernel.square_sum(gradients + first, std::min(kChunk, count - first));
  });
  double total = 0.0;
  for (double sum : sums) total += sum;
  return std::sqrt(total);
}

bool valid(const cov_adamw_options& o) {
  return std::isfinite(o.learning_rate) && o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 &&
         o.beta2 < 1 && o.epsilon >= 0 && std::isfinite(o.epsilon) &&
         std::isfinite(o.weight_decay) && o.gradient_clip >= 0 && std::isfinite(o.gradient_clip);
}

}  // namespace

AdamwScalars adamw_scalars(const cov_adamw_options& o, int64_t step, double norm) {
  AdamwScalars s;
  s.decay = static_cast<float>(1.0 - static_cast<double>(o.learning_rate) * o.weight_decay);
  s.beta1 = o.beta1;
  s.one_minus_beta1 = static_cast<float>(1.0 - static_cast<double>(o.beta1));
  s.beta2 = o.beta2;
  s.one_minus_beta2 = static_cast<float>(1.0 - static_cast<double>(o.beta2));
  s.step_size = static_cast<float>(o.learning_rate / (1.0 - power(o.beta1, step)));
  s.inv_bias2 = static_cast<float>(1.0 / std::sqrt(1.0 - power(o.beta2, step)));
  s.epsilon = o.epsilon;
  s.grad_scale = 1.0f;
  if (o.gradient_clip > 0)
    s.grad_scale = static_cast<float>(std::min(1.0, o.gradient_clip / (norm + 1e-6)));
  return s;
}

void check_optimizer(const cov_adamw_options* options) {
  if (options == nullptr || !valid(*options))
    throw Failure{
        cov_error(COV_INVALID_ARGUMENT,
                  "optimizer: betas must be in [0, 1), epsilon and clip >= 0, all finite")};
}

void clear_gradients(cov_model& model) {
  if (model.buffers[COV_GRADIENTS].data() != nullptr)
    std::memset(model.buffers[COV_GRADIENTS].data(), 0,
                cov_parameter_count(&model.shape) * sizeof(float));
}

double optimizer_step(cov_model& model, const cov_adamw_options& options) {
  const KernelTable& kernel = kernels();
  float* p = model.state(COV_PARAMETERS);
  float* g = model.state(COV_GRADIENTS);
  float* m = model.state(COV_FIRST_MOMENT);
  float* v = model.state(COV_SECOND_MOMENT);
  const int64_t count = static_cast<int64_t>(cov_parameter_count(&model.shape));
  const double norm = gradient_norm(model, g, count);
  if (!std::isfinite(norm)) {
    clear_gradients(model);
    throw Failure{cov_error(COV_NON_FINITE, "the gradient norm is not finite; no step was made")};
  }
  const AdamwScalars decayed = adamw_scalars(options, model.step_count + 1, norm);
  AdamwScalars plain = decayed;
  plain.decay = 1.0f;
  struct Range {
    int64_t first, count;
    bool decay;
  };
  std::vector<cov_tensor_info> tensors(static_cast<size_t>(cov_tensor_count(&model.shape)));
  const cov_status status =
      cov_tensor_table(&model.shape, tensors.data(), static_cast<int32_t>(tensors.size()));
  if (status.code != COV_OK) throw Failure{status};
  std::vector<Range> ranges;
  for (const cov_tensor_info& tensor : tensors)
    for (uint64_t i = 0; i < tensor.length; i += kChunk)
      ranges.push_back({static_cast<int64_t>(tensor.offset + i),
                        static_cast<int64_t>(std::min<uint64_t>(kChunk, tensor.length - i)),
                        tensor.rank == 2});
  model.pool.run(static_cast<int64_t>(ranges.size()), [&](int64_t task) {
    const Range& r = ranges[static_cast<size_t>(task)];
    kernel.adamw(p + r.first, g + r.first, m + r.first, v + r.first, r.count,
                 r.decay ? decayed : plain);
  });
  ++model.step_count;
  return norm;
}

double adamw_step(cov_model& model, const std::array<float*, 4>& buffers, int64_t count,
                  int64_t step, const cov_adamw_options& options) {
  const KernelTable& kernel = kernels();
  const auto [p, g, m, v] = buffers;
  const double norm = gradient_norm(model, g, count);
  if (!std::isfinite(norm)) {
    std::memset(g, 0, static_cast<size_t>(count) * sizeof(float));
    throw Failure{cov_error(COV_NON_FINITE, "the gradient norm is not finite; no step was made")};
  }
  const AdamwScalars scalars = adamw_scalars(options, step, norm);
  for (int64_t first = 0; first < count; first += kChunk)
    kernel.adamw(p + first, g + first, m + first, v + first, std::min(kChunk, count - first),
                 scalars);
  return norm;
}

}  // namespace covenant

extern "C" cov_status cov_model_optimizer_step(cov_model* model, const cov_adamw_options* options,
                                               float* gradient_norm) {
  if (model == nullptr) return cov_error(COV_INVALID_ARGUMENT, "model is null");
  return covenant::guarded([&] {
    covenant::check_optimizer(options);
    if (model->lora != nullptr)
      return cov_error(COV_FAILED_PRECONDITION,
                       "adapters are in use and the base is frozen; step the adapters");
    model->kept.valid = false;
    const double norm = covenant::optimizer_step(*model, *options);
    if (gradient_norm != nullptr) *gradient_norm = static_cast<float>(norm);
    return cov_ok();
  });
}
