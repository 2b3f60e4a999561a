// Forward, backward and the training step over batches, in groups of whole sequences: a group's
// activations stay in cache, and the group size depends on the shape alone.
#include <algorithm>
#include <cmath>

#include "engine/groups.h"
#include "engine/head.h"
#include "engine/lora.h"
#include "engine/optimizer.h"

namespace covenant {
namespace {

struct Groups {
  int64_t sequences, length, per_group;
  Groups(int64_t batch_sequences, int64_t sequence_length)
      : sequences(batch_sequences),
        length(sequence_length),
        per_group(std::max<int64_t>(1, kGroupRows / sequence_length)) {}
  int64_t count() const { return (sequences + per_group - 1) / per_group; }
  int64_t first(int64_t group) const { return group * per_group; }
  int64_t size(int64_t group) const { return std::min(per_group, sequences - first(group)); }
};

void check_batch(const cov_model* model, const cov_batch* batch) {
  if (model == nullptr || batch == nullptr || batch->tokens == nullptr || batch->targets == nullptr)
    throw Failure{
        cov_error(COV_INVALID_ARGUMENT, "model, batch, tokens and targets must be given")};
  if (batch->sequences < 1 || batch->sequence_length < 1 || batch->sequences > (1 << 24))
    throw Failure{cov_error(COV_INVALID_ARGUMENT, "a batch needs 1 or more sequences and tokens")};
  if (batch->sequence_length > model->shape.max_positions)
    throw Failure{cov_error(COV_OUT_OF_RANGE, "sequence_length %d exceeds max_positions %d",
                            batch->sequence_length, model->shape.max_positions)};
  const int64_t count = int64_t{batch->sequences} * batch->sequence_length;
  check_tokens(model->shape, batch->tokens, count, "token");
  for (int64_t i = 0; i < count; ++i)
    if (batch->targets[i] < -1 || batch->targets[i] >= model->shape.vocab_size)
      throw Failure{cov_error(COV_OUT_OF_RANGE, "target %lld is %d, the vocabulary has %d",
                              static_cast<long long>(i), batch->targets[i],
                              model->shape.vocab_size)};
}

// One group's rows as the layers see them.
struct GroupRows {
  std::vector<Segment> segments;
  std::vector<int32_t> positions;
  std::vector<HeadRow> scored;

  GroupRows(const Groups& groups, int64_t group, const int32_t* targets) {
    const int64_t first = groups.first(group) * groups.length;
    for (int64_t s = 0; s < groups.size(group); ++s) {
      segments.push_back({s * groups.length, groups.length});
      for (int64_t t = 0; t < groups.length; ++t) {
        const int64_t row = s * groups.length + t;
        positions.push_back(static_cast<int32_t>(t));
        if (targets[first + row] >= 0) scored.push_back({row, first + row, targets[first + row]});
      }
    }
  }
};

void forward_group(cov_model& model, const int32_t* tokens, const GroupRows& rows,
                   Activations& activations) {
  forward_layers(model, tokens, rows.positions.data(), rows.segments.data(),
                 static_cast<int64_t>(rows.segments.size()), activations);
}

// Shared memory of head and layer backward: dx (rows, d), then the larger of both works.
struct BackwardWork {
  float *dx, *work;
  BackwardWork(cov_model& model, int64_t rows) {
    const int64_t dx_size = (rows * model.layout.d + 15) / 16 * 16;
    const int64_t size = std::max(head_work_size(model, true), backward_work_size(model, rows));
    dx = model.work.reserve(model.memory, dx_size + size);
    work = dx + dx_size;
  }
};

// Head (with gradient) and layers backward of one group whose forward has run.
void backward_group(cov_model& model, const int32_t* tokens, const GroupRows& rows,
                    Activations& activations, const HeadOutput& output, const float* coefficients,
                    float constant) {
  BackwardWork memory(model, activations.rows);
  std::fill(memory.dx, memory.dx + activations.rows * model.layout.d, 0.0f);
  HeadWork work(model, true, memory.work);
  head(model, activations.last, rows.scored, output, true, coefficients, constant, memory.dx, work);
  backward_layers(model, tokens, rows.segments.data(),
                  static_cast<int64_t>(rows.segments.size()), activations, memory.dx, memory.work);
}

cov_status forward(cov_model& model, const cov_batch& batch, const cov_forward_options& options,
                   const cov_forward_output& output) {
  check_forward_options(model.shape, options);
  const float temperature = options.temperature == 0.0f ? 1.0f : options.temperature;
  const Groups groups(batch.sequences, batch.sequence_length);
  const int64_t count = groups.sequences * groups.length;
  clear_forward_output(count, options.top_count, output);
  KeptForward& kept = model.kept;
  kept.valid = false;
  const HeadOutput head_output{output.log_probs,     output.entropy,    output.top_tokens,
                               output.top_log_probs, options.top_count, 1.0f / temperature};
  pack_weights(model, Passes::kForward);
  prepare_rope(model, groups.length);
  if (options.keep_activations)
    kept.groups.resize(static_cast<size_t>(groups.count()));
  else
    kept.groups.clear();
  for (int64_t group = 0; group < groups.count(); ++group) {
    const GroupRows rows(groups, group, batch.targets);
    Activations& activations =
        options.keep_activations ? kept.groups[static_cast<size_t>(group)] : model.activations;
    activations.reserve(model.memory, model.layout, groups.size(group) * groups.length,
                        !options.keep_activations);
    forward_group(model, batch.tokens + groups.first(group) * groups.length, rows, activations);
    HeadWork work(model, false,
                  model.work.reserve(model.memory, head_work_size(model, false)));
    head(model, activations.last, rows.scored, head_output, false, nullptr, 0.0f, nullptr, work);
  }
  if (!options.keep_activations) return cov_ok();
  kept.tokens.assign(batch.tokens, batch.tokens + count);
  kept.targets.assign(batch.targets, batch.targets + count);
  kept.sequences = groups.sequences;
  kept.length = groups.length;
  kept.inverse_temperature = head_output.inverse_temperature;
  kept.valid = true;
  return cov_ok();
}

cov_status backward(cov_model& model, const float* coefficients, uint64_t count) {
  KeptForward& kept = model.kept;
  if (!kept.valid)
    return cov_error(COV_FAILED_PRECONDITION, "backward needs a forward with keep_activations");
  if (coefficients == nullptr || count != kept.tokens.size())
    return cov_error(COV_INVALID_ARGUMENT, "%llu coefficients given, the kept forward has %zu",
                     static_cast<unsigned long long>(count), kept.tokens.size());
  for (uint64_t i = 0; i < count; ++i)
    if (!std::isfinite(coefficients[i]))
      return cov_error(COV_NON_FINITE, "coefficient %llu is not finite",
                       static_cast<unsigned long long>(i));
  const Groups groups(kept.sequences, kept.length);
  if (model.lora != nullptr) prepare_lora(*model.lora, groups.size(0) * groups.length);
  kept.valid = false;
  pack_weights(model, Passes::kBackward);
  const HeadOutput nothing{nullptr, nullptr, nullptr, nullptr, 0, kept.inverse_temperature};
  for (int64_t group = 0; group < groups.count(); ++group) {
    const GroupRows rows(groups, group, kept.targets.data());
    backward_group(model, kept.tokens.data() + groups.first(group) * groups.length, rows,
                   kept.groups[static_cast<size_t>(group)], nothing, coefficients, 0.0f);
  }
  return cov_ok();
}

cov_status train_step(cov_model& model, const cov_batch& batch, const cov_adamw_options& options,
                      double* loss, float* norm) {
  const Groups groups(batch.sequences, batch.sequence_length);
  const int64_t count = groups.sequences * groups.length;
  const int64_t scored = std::count_if(batch.targets, batch.targets + count,
                                       [](int32_t target) { return target >= 0; });
  if (scored == 0) return cov_error(COV_INVALID_ARGUMENT, "no position of the batch is scored");
  cov_lora* const lora = model.lora;
  if (lora != nullptr) prepare_lora(*lora, groups.size(0) * groups.length);
  for (cov_buffer which : {COV_GRADIENTS, COV_FIRST_MOMENT, COV_SECOND_MOMENT})
    lora == nullptr ? model.state(which) : lora->state(which);
  model.kept.valid = false;
  pack_weights(model, Passes::kBoth);
  prepare_rope(model, groups.length);
  std::vector<float> log_probs(static_cast<size_t>(count), 0.0f);
  const HeadOutput output{log_probs.data(), nullptr, nullptr, nullptr, 0, 1.0f};
  const float coefficient = static_cast<float>(-1.0 / static_cast<double>(scored));
  double gradient_norm = 0.0;
  try {
    for (int64_t group = 0; group < groups.count(); ++group) {
      const GroupRows rows(groups, group, batch.targets);
      const int32_t* tokens = batch.tokens + groups.first(group) * groups.length;
      model.activations.reserve(model.memory, model.layout, groups.size(group) * groups.length,
                                false);
      forward_group(model, tokens, rows, model.activations);
      backward_group(model, tokens, rows, model.activations, output, nullptr, coefficient);
    }
    gradient_norm =
        lora == nullptr ? optimizer_step(model, options) : lora_optimizer_step(*lora, options);
  } catch (...) {
    lora == nullptr ? clear_gradients(model) : lora->clear_gradients();  // half-finished sums
    throw;
  }
  double sum = 0.0;
  for (float log_prob : log_probs) sum -= static_cast<double>(log_prob);
  if (loss != nullptr) *loss = sum / static_cast<double>(scored);
  if (norm != nullptr) *norm = static_cast<float>(gradient_norm);
  return cov_ok();
}

}  // namespace
}  // namespace covenant

extern "C" cov_status cov_model_forward(cov_model* model, const cov_batch* batch,
                                        const cov_forward_options* options,
                                        const cov_forward_output* output) {
  return covenant::guarded([&] {
    covenant::check_batch(model, batch);
    if (options == nullptr || output == nullptr)
      return cov_error(COV_INVALID_ARGUMENT, "options and output must be given");
    return covenant::forward(*model, *batch, *options, *output);
  });
}

extern "C" cov_status cov_model_backward(cov_model* model, const float* coefficients,
                                         uint64_t count) {
  if (model == nullptr) return cov_error(COV_INVALID_ARGUMENT, "model is null");
  return covenant::guarded([&] { return covenant::backward(*model, coefficients, count); });
}

extern "C" cov_status cov_model_train_step(cov_model* model, const cov_batch* batch,
                                           const cov_adamw_options* options, double* loss,
                                           float* gradient_norm) {
  return covenant::guarded([&] {
    covenant::check_batch(model, batch);
    covenant::check_optimizer(options);
    return covenant::train_step(*model, *batch, *options, loss, gradient_norm);
  });
}
