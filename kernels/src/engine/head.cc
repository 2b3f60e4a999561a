// The language-model head: z = W h, l = z_y - log sum exp z, dz = c (delta_y - softmax z).
#include "engine/head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "engine/gemm.h"
#include "engine/groups.h"
#include "engine/isa/table.h"
#include "engine/rowwise.h"

namespace covenant {
namespace {

// Row statistics and outputs of one row; z is left as logits.
double score_row(const KernelTable& kernel, const float* z, int64_t vocab, const HeadRow& row,
                 const HeadOutput& out, std::vector<int32_t>& order) {
  const RowStats stats = kernel.logit_stats(z, out.inverse_temperature, vocab);
  const double log_sum = exact_log(static_cast<double>(stats.sum));
  const double lse = static_cast<double>(stats.max) + log_sum;
  const float scaled = z[row.target] * out.inverse_temperature;
  if (out.log_probs != nullptr)
    out.log_probs[row.position] = static_cast<float>(static_cast<double>(scaled) - lse);
  if (out.entropy != nullptr)
    out.entropy[row.position] = static_cast<float>(log_sum - static_cast<double>(stats.dot) /
                                                                 static_cast<double>(stats.sum));
  if (out.top_count > 0 && (out.top_tokens != nullptr || out.top_log_probs != nullptr)) {
    const int64_t at = row.position * out.top_count;
    top_log_probs(z, vocab, lse, out.inverse_temperature, out.top_count, order,
                  out.top_tokens == nullptr ? nullptr : out.top_tokens + at,
                  out.top_log_probs == nullptr ? nullptr : out.top_log_probs + at);
  }
  return lse;
}

// dx = J^T dnormed of the final norm for compact rows, and the gain's gradient unless frozen.
void norm_backward(cov_model& model, const float* last, const HeadRow* rows, int64_t count,
                   float* dx, HeadWork& work) {
  const KernelTable& kernel = kernels();
  const int64_t d = model.layout.d;
  const float* gain = model.parameters() + model.layout.final_norm;
  for_row_blocks(model.pool, count, count * d, [&](int64_t first, int64_t end) {
    float* partial = work.partials + first / kRowsPerTask * d;
    std::memset(partial, 0, static_cast<size_t>(d) * sizeof(float));
    for (int64_t i = first; i < end; ++i)
      kernel.rmsnorm_backward(last + rows[i].row * d, gain, work.dnormed + i * d, work.zeros,
                              work.r[i], d, dx + rows[i].row * d, partial);
  });
  if (model.lora != nullptr) return;  // the base is frozen
  float* dgain = model.state(COV_GRADIENTS) + model.layout.final_norm;
  for (int64_t first = 0; first < count; first += kRowsPerTask)
    kernel.add(work.partials + first / kRowsPerTask * d, d, dgain);
}

}  // namespace

double exact_log(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, 8);
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1022;
  if (!(x > 0.0) || exponent > 1024) return std::log(x);  // NaN, infinity: not a result
  bits = (bits & 0x000fffffffffffffull) | 0x3fe0000000000000ull;
  double m;
  std::memcpy(&m, &bits, 8);
  if (m < 0.70710678118654752) {
    m *= 2.0;
    --exponent;
  }
  const double t = (m - 1.0) / (m + 1.0), t2 = t * t;
  double series = 0.0;
  for (int power = 21; power >= 3; power -= 2) series = (series + 1.0 / power) * t2;
  return static_cast<double>(exponent) * 0.693147180559945309 + 2.0 * (t + t * series);
}

int64_t head_chunk_rows(const cov_model& model) {
  return head_chunk_rows(model.layout.vocab);
}

int64_t head_work_size(const cov_model& model) {
  const int64_t rows = head_chunk_rows(model), d = model.layout.d, vocab = model.layout.vocab;
  const int64_t rounded = (bf16_size(rows, vocab) + bf16_size(rows, d) + 2) / 2;
  return rows * (2 * d + 1 + vocab) + d + rmsnorm_partials_size(rows, d) +
         (model.layout.compute == Compute::kF32 ? 0 : rounded) +
         gradient_scratch_size(model.layout.compute, rows, d) + 8 * 16;
}

HeadWork::HeadWork(const cov_model& model, float* work) {
  const int64_t rows = head_chunk_rows(model), d = model.layout.d, vocab = model.layout.vocab;
  const auto take = [&work](int64_t floats) {
    float* p = work;
    work += (floats + 15) / 16 * 16;
    return p;
  };
  const auto take16 = [&](int64_t columns) {
    return reinterpret_cast<Bf16*>(take((bf16_size(rows, columns) + 1) / 2));
  };
  dnormed = take(rows * d);
  r = take(rows);
  logits = take(rows * vocab);
  zeros = take(d);
  partials = take(rmsnorm_partials_size(rows, d));
  if (model.layout.compute == Compute::kF32) {
    normed = {take(rows * d), nullptr};
    dlogits = {logits, nullptr};
  } else {
    normed = {nullptr, take16(d)};
    dlogits = {nullptr, take16(vocab)};
  }
  gradient_scratch =
      take(gradient_scratch_size(model.layout.compute, rows, d));
  std::memset(zeros, 0, static_cast<size_t>(d) * sizeof(float));
}

void head_logits(cov_model& model, const float* last, const int64_t* rows, int64_t count,
                 HeadWork& work) {
  const KernelTable& kernel = kernels();
  const int64_t d = model.layout.d;
  const float* gain = model.parameters() + model.layout.final_norm;
  for_row_blocks(model.pool, count, count * d, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i)
      work.r[i] = rmsnorm_row(kernel, last + rows[i] * d, gain, model.eps(), d, work.normed, i);
  });
  multiply(model.pool, work.normed, count, model.forward_weights.head, nullptr, work.logits);
}

void head(cov_model& model, const float* last, const std::vector<HeadRow>& rows,
          const HeadOutput& output, bool backward, const float* coefficients, float constant,
          float* dx, HeadWork& work) {
  const KernelTable& kernel = kernels();
  const Layout& l = model.layout;
  const int64_t chunk = head_chunk_rows(model), total = static_cast<int64_t>(rows.size());
  std::vector<int64_t> indices(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) indices[i] = rows[i].row;
  std::vector<std::vector<int32_t>> orders(static_cast<size_t>(model.pool.threads()));
  if (output.top_count > 0)
    for (std::vector<int32_t>& order : orders) order.resize(static_cast<size_t>(l.vocab));
  std::atomic<bool> finite{true};
  for (int64_t first = 0; first < total; first += chunk) {
    const int64_t count = std::min(chunk, total - first);
    head_logits(model, last, indices.data() + first, count, work);
    for_row_blocks(model.pool, count, count * l.vocab * 4, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        const HeadRow& row = rows[static_cast<size_t>(first + i)];
        float* z = work.logits + i * l.vocab;
        const double lse = score_row(kernel, z, l.vocab, row, output,
                                     orders[static_cast<size_t>(ThreadPool::worker())]);
        if (!std::isfinite(lse)) finite.store(false, std::memory_order_relaxed);
        if (!backward) continue;
        const float c = (coefficients == nullptr ? constant : coefficients[row.position]) *
                        output.inverse_temperature;
        kernel.logit_gradient(z, output.inverse_temperature, static_cast<float>(lse), c, l.vocab);
        z[row.target] += c;
        if (work.dlogits.bf16 != nullptr)
          kernel.round_bf16(z, l.vocab, bf16_padded(l.vocab),
                            work.dlogits.bf16 + i * bf16_row(l.vocab));
      }
    });
    if (!finite.load()) throw Failure{cov_error(COV_NON_FINITE, "the logits are not finite")};
    if (!backward) continue;
    multiply(model.pool, work.dlogits, count, model.backward_weights.head, nullptr, work.dnormed);
    if (model.lora == nullptr)
      multiply_gradient(model.pool, l.compute, work.dlogits, work.normed, count, l.vocab, l.d,
                        model.state(COV_GRADIENTS) + l.head, work.gradient_scratch);
    norm_backward(model, last, rows.data() + first, count, dx, work);
  }
}

void top_log_probs(const float* logits, int64_t vocab, double lse, float inverse_temperature,
                   int32_t count, std::vector<int32_t>& order, int32_t* tokens, float* log_probs) {
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + count, order.begin() + vocab,
                    [logits](int32_t a, int32_t b) {
                      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
                    });
  for (int32_t i = 0; i < count; ++i) {
    const int32_t token = order[static_cast<size_t>(i)];
    if (tokens != nullptr) tokens[i] = token;
    if (log_probs != nullptr)
      log_probs[i] =
          static_cast<float>(static_cast<double>(logits[token] * inverse_temperature) - lse);
  }
}

}  // namespace covenant
