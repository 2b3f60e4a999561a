// The language-model head: z = W h, l = z_y - log sum exp z, dz = c (delta_y - softmax z).
#include "engine/head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "engine/cut.h"
#include "engine/gemm.h"
#include "engine/groups.h"
#include "engine/isa/table.h"
#include "engine/rowwise.h"

namespace covenant {
namespace {

// Rows whose logits one thread has at once: whole tiles, and in its second-level cache as long as
// the vocabulary allows.
constexpr int64_t kLogitRows = 24;

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

// From the gradients of a chunk's logits: dx of its rows, and unless the base is frozen what the
// head's matrix and the gain of the final norm get.
void chunk_backward(cov_model& model, const float* last, const HeadRow* rows, int64_t count,
                    float* dx, const HeadWork& work) {
  const KernelTable& kernel = kernels();
  const Layout& l = model.layout;
  const float* const gain = model.parameters() + l.final_norm;
  float* const gradients = model.lora == nullptr ? model.state(COV_GRADIENTS) : nullptr;
  const auto norm = [&](int64_t block) {
    const int64_t first = block * kRowsPerTask, end = std::min(count, first + kRowsPerTask);
    float* const partial = work.partials + block * l.d;
    std::memset(partial, 0, static_cast<size_t>(l.d) * sizeof(float));
    for (int64_t i = first; i < end; ++i)
      kernel.rmsnorm_backward(last + rows[i].row * l.d, gain, work.dnormed + i * l.d, work.zeros,
                              work.r[i], l.d, dx + rows[i].row * l.d, partial);
  };
  const int64_t norm_blocks = (count + kRowsPerTask - 1) / kRowsPerTask;
  const MultiplyTasks input(model.pool, work.dlogits, count, model.backward_weights.head, nullptr,
                            work.dnormed);
  if (gradients == nullptr) {  // the base is frozen
    model.pool.run(input.count(), input);
    model.pool.run(norm_blocks, norm);
    return;
  }
  const GradientTasks gradient(model.pool, l.compute, work.dlogits, work.normed, count, l.vocab,
                               l.d, gradients + l.head, work.gradient_scratch);
  model.pool.run_together(
      {{input.count(), input}, {gradient.packing().count(), gradient.packing()}});
  model.pool.run_together({{norm_blocks, norm}, {gradient.count(), gradient}});
  for (int64_t block = 0; block < norm_blocks; ++block)
    kernel.add(work.partials + block * l.d, l.d, gradients + l.final_norm);
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

HeadWork::HeadWork(const cov_model& model, bool backward, float* base)
    : rows(head_chunk_rows(model.layout.vocab)) {
  const Layout& l = model.layout;
  const bool f32 = l.compute == Compute::kF32;
  Cut cut(base);
  const auto take_operand = [&](int64_t columns) -> Operand {
    if (f32) return {cut.take(rows * columns), nullptr};
    return {nullptr, cut.take16(bf16_size(rows, columns))};
  };
  r = cut.take(rows);
  normed = take_operand(l.d);
  if (backward) dlogits = take_operand(l.vocab);
  if (!backward || !f32)
    logits = cut.take(std::min(rows, model.pool.threads() * kLogitRows) * l.vocab);
  if (backward) {
    dnormed = cut.take(rows * l.d);
    zeros = cut.take(l.d);
    partials = cut.take(rmsnorm_partials_size(rows, l.d));
    gradient_scratch = cut.take(gradient_scratch_size(l.compute, rows, l.d));
    if (base != nullptr) std::memset(zeros, 0, static_cast<size_t>(l.d) * sizeof(float));
  }
  size = cut.floats();
}

int64_t head_work_size(const cov_model& model, bool backward) {
  return HeadWork(model, backward, nullptr).size;
}

namespace {

// One run of the head over the chunks of a group's rows.
struct HeadPass {
  cov_model& model;
  const float* last;
  const HeadOutput& output;
  bool backward;
  const float* coefficients;
  float constant;
  const HeadWork& work;
  std::vector<std::vector<int32_t>> orders;  // for the largest logits, of each thread
  std::atomic<bool> finite{true};

  void norm(const HeadRow& row, int64_t i) const {
    const int64_t d = model.layout.d;
    work.r[i] = rmsnorm_row(kernels(), last + row.row * d,
                            model.parameters() + model.layout.final_norm, model.eps(), d,
                            work.normed, i);
  }

  // Row i of a chunk from its logits z: results, and with `backward` the logits' gradient.
  void score(const HeadRow& row, int64_t i, float* z) {
    const KernelTable& kernel = kernels();
    const int64_t vocab = model.layout.vocab;
    const float inverse = output.inverse_temperature;
    const double exact = score_row(kernel, z, vocab, row, output,
                                   orders[static_cast<size_t>(ThreadPool::worker())]);
    if (!std::isfinite(exact)) finite.store(false, std::memory_order_relaxed);
    if (!backward) return;
    const float lse = static_cast<float>(exact);
    const float c = (coefficients == nullptr ? constant : coefficients[row.position]) * inverse;
    if (work.dlogits.bf16 == nullptr)
      kernel.logit_gradient(z, inverse, lse, c, row.target, vocab, z);
    else
      kernel.logit_gradient_bf16(z, inverse, lse, c, row.target, vocab,
                                 bf16_row_of(work.dlogits, i, vocab));
  }

  void score_chunk(const HeadRow* rows, int64_t count) {
    const int64_t d = model.layout.d, vocab = model.layout.vocab;
    const PackedMatrix& weights = model.forward_weights.head;
    if (count < kLogitRows * model.pool.threads()) {
      // Too few for a block for each thread: the product is shared out by columns.
      float* const logits = work.logits == nullptr ? work.dlogits.f32 : work.logits;
      for (int64_t i = 0; i < count; ++i) norm(rows[i], i);
      multiply(model.pool, work.normed, count, weights, nullptr, logits);
      for_row_blocks(model.pool, count, count * vocab * 4, [&](int64_t first, int64_t end) {
        for (int64_t i = first; i < end; ++i) score(rows[i], i, logits + i * vocab);
      });
      return;
    }
    // One thread takes a few rows from the norm to their gradients, in its own caches.
    model.pool.run((count + kLogitRows - 1) / kLogitRows, [&](int64_t task) {
      const int64_t first = task * kLogitRows, end = std::min(count, first + kLogitRows);
      float* const logits = work.logits == nullptr
                                ? work.dlogits.f32 + first * vocab
                                : work.logits + ThreadPool::worker() * kLogitRows * vocab;
      for (int64_t i = first; i < end; ++i) norm(rows[i], i);
      multiply_rows(rows_from(work.normed, first, d), 0, end - first, weights, nullptr, logits);
      for (int64_t i = first; i < end; ++i) score(rows[i], i, logits + (i - first) * vocab);
    });
  }
};

}  // namespace

void head(cov_model& model, const float* last, const std::vector<HeadRow>& rows,
          const HeadOutput& output, bool backward, const float* coefficients, float constant,
          float* dx, HeadWork& work) {
  std::vector<std::vector<int32_t>> orders(static_cast<size_t>(model.pool.threads()));
  if (output.top_count > 0)
    for (std::vector<int32_t>& order : orders)
      order.resize(static_cast<size_t>(model.layout.vocab));
  HeadPass pass{model,        last,     output, backward,
                coefficients, constant, work,   std::move(orders)};
  const int64_t total = static_cast<int64_t>(rows.size());
  for (int64_t first = 0; first < total; first += work.rows) {
    const HeadRow* const chunk = rows.data() + first;
    const int64_t count = std::min(work.rows, total - first);
    pass.score_chunk(chunk, count);
    if (!pass.finite.load())
      throw Failure{cov_error(COV_NON_FINITE, "the logits are not finite")};
    if (backward) chunk_backward(model, last, chunk, count, dx, work);
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

void check_forward_options(const cov_model_shape& shape, const cov_forward_options& options) {
  if (options.top_count < 0 || options.top_count > std::min(256, shape.vocab_size))
    throw Failure{cov_error(COV_INVALID_ARGUMENT,
                            "top_count is %d, must be in [0, min(256, vocabulary)]",
                            options.top_count)};
  const float temperature = options.temperature;
  if (temperature != 0.0f && !(temperature >= 1e-4f && temperature <= 1e4f))
    throw Failure{cov_error(COV_INVALID_ARGUMENT, "temperature must be in [1e-4, 1e4]")};
}

void clear_forward_output(int64_t positions, int32_t top_count, const cov_forward_output& output) {
  if (output.log_probs != nullptr) std::fill_n(output.log_probs, positions, 0.0f);
  if (output.entropy != nullptr) std::fill_n(output.entropy, positions, 0.0f);
  if (output.top_tokens != nullptr) std::fill_n(output.top_tokens, positions * top_count, -1);
  if (output.top_log_probs != nullptr)
    std::fill_n(output.top_log_probs, positions * top_count, 0.0f);
}

}  // namespace covenant
