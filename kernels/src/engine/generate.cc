// Generation with a KV cache and continuous batching: each step decodes one token of every running
// sequence; finished ones leave, waiting ones enter through a prefill of their prompts.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "covenant/rng.h"
#include "engine/fingerprint.h"
#include "engine/head.h"
#include "engine/isa/table.h"
#include "engine/sampler.h"

namespace covenant {
namespace {

constexpr int32_t kBatchDefault = 32;
constexpr int32_t kBatchMax = 1024;
constexpr int64_t kPrefillRows =
    512;  // prompt tokens computed together, unless one prompt is longer
constexpr int32_t kStopTokensMax = 64;
constexpr int64_t kSmallSampling = 1 << 14;  // logits not worth waking a thread for

struct Sequence {
  int32_t request;
  int64_t length;    // positions whose keys and values are in the cache
  int64_t capacity;  // of the cache, a multiple of 32
  Buffer<float> cache;
};

bool cancelled(const int32_t* flag) {
  return flag != nullptr && __atomic_load_n(flag, __ATOMIC_RELAXED) != 0;
}

class Generation {
 public:
  Generation(cov_model& model, const cov_generate_request* requests, int32_t count,
             const cov_generate_options& options, cov_generate_output* outputs)
      : model_(model),
        requests_(requests),
        count_(count),
        options_(options),
        outputs_(outputs),
        fingerprint_(options.fingerprint, model.layout.d, model.eps()),
        batch_(options.max_batch == 0 ? kBatchDefault : options.max_batch) {}

  cov_status run();

 private:
  void check() const;
  void admit();
  void compute(const std::vector<CachedSegment>& segments, const std::vector<int32_t>& tokens,
               const std::vector<int32_t>& positions, const std::vector<Sequence*>& sequences);
  void finish_rows(const std::vector<int64_t>& rows, const std::vector<Sequence*>& sequences);
  void finish_row(const float* logits, const float* hidden, Sequence& sequence, int32_t* token,
                  float* log_prob);
  void accept(Sequence& sequence, int32_t token, float log_prob);
  void decode();
  void sweep();

  cov_model& model_;
  const cov_generate_request* requests_;
  int32_t count_;
  const cov_generate_options& options_;
  cov_generate_output* outputs_;
  Fingerprint fingerprint_;
  int32_t batch_;
  int32_t next_ = 0;
  std::vector<std::unique_ptr<Sequence>> running_;
  // One per thread.
  std::vector<Sampler> samplers_;
  std::vector<std::vector<int32_t>> orders_;
  std::vector<std::vector<float>> normed_;
};

void Generation::check() const {
  const int32_t vocab = model_.shape.vocab_size;
  if (options_.top_count < 0 || options_.top_count > std::min(256, vocab))
    throw Failure{cov_error(COV_INVALID_ARGUMENT, "top_count is %d", options_.top_count)};
  if (batch_ < 1 || batch_ > kBatchMax)
    throw Failure{
        cov_error(COV_INVALID_ARGUMENT, "max_batch is %d, must be in [0, %d]", batch_, kBatchMax)};
  for (int32_t i = 0; i < count_; ++i) {
    const cov_generate_request& r = requests_[i];
    if (r.prompt == nullptr || r.prompt_length < 1 || r.max_new_tokens < 1 ||
        outputs_[i].tokens == nullptr)
      throw Failure{cov_error(COV_INVALID_ARGUMENT,
                              "request %d needs a prompt, max_new_tokens >= 1 and a result buffer",
                              i)};
    if (int64_t{r.prompt_length} + r.max_new_tokens > model_.shape.max_positions)
      throw Failure{cov_error(COV_OUT_OF_RANGE,
                              "request %d: prompt %d + max_new_tokens %d exceeds max_positions %d",
                              i, r.prompt_length, r.max_new_tokens, model_.shape.max_positions)};
    if (!sampler_options_valid({r.temperature, r.top_k, r.top_p}))
      throw Failure{cov_error(COV_INVALID_ARGUMENT,
                              "request %d: temperature must be 0 or in [1e-4, 1e4], top_k >= 0, "
                              "top_p in [0, 1]",
                              i)};
    if (r.stop_token_count < 0 || r.stop_token_count > kStopTokensMax ||
        (r.stop_token_count > 0 && r.stop_tokens == nullptr))
      throw Failure{
          cov_error(COV_INVALID_ARGUMENT, "request %d: at most %d stop tokens", i, kStopTokensMax)};
    check_tokens(model_, r.prompt, r.prompt_length, "prompt token");
  }
}

// Starts waiting requests while there is room, their prompts in one prefill of bounded size.
void Generation::admit() {
  const AttentionShape& shape = model_.layout.attention;
  while (next_ < count_ && static_cast<int32_t>(running_.size()) < batch_) {
    std::vector<CachedSegment> segments;
    std::vector<int32_t> tokens, positions;
    std::vector<Sequence*> sequences;
    while (next_ < count_ && static_cast<int32_t>(running_.size()) < batch_) {
      const cov_generate_request& r = requests_[next_];
      const int64_t rows = static_cast<int64_t>(tokens.size());
      if (rows > 0 && rows + r.prompt_length > kPrefillRows) break;
      auto sequence = std::make_unique<Sequence>();
      sequence->request = next_;
      sequence->length = 0;
      // The last token of a completion is never fed back, so it needs no place.
      sequence->capacity = (r.prompt_length + r.max_new_tokens - 1 + 31) / 32 * 32;
      const int64_t size = kv_cache_size(shape, sequence->capacity);
      sequence->cache.reserve(model_.memory, size * model_.layout.layers);
      std::fill_n(sequence->cache.data(), size * model_.layout.layers, 0.0f);
      segments.push_back({rows, r.prompt_length, 0, nullptr, 0});
      tokens.insert(tokens.end(), r.prompt, r.prompt + r.prompt_length);
      for (int32_t t = 0; t < r.prompt_length; ++t) positions.push_back(t);
      sequences.push_back(sequence.get());
      running_.push_back(std::move(sequence));
      ++next_;
    }
    compute(segments, tokens, positions, sequences);
    sweep();
    if (cancelled(options_.cancel)) return;
  }
}

// Runs the layers over the segments' rows and draws the next token of each segment.
void Generation::compute(const std::vector<CachedSegment>& segments,
                         const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
                         const std::vector<Sequence*>& sequences) {
  const AttentionShape& shape = model_.layout.attention;
  int64_t longest = 0;
  for (const CachedSegment& segment : segments)
    longest = std::max(longest, segment.start + segment.count);
  const int64_t scratch_size = attention_scratch_size(shape, longest);
  float* scratch =
      model_.attention_scratch.reserve(model_.memory, scratch_size * model_.pool.threads());
  model_.activations.reserve(model_.memory, model_.layout, static_cast<int64_t>(tokens.size()),
                             true);
  std::vector<CachedSegment> layer_segments = segments;
  forward_layers(
      model_, tokens.data(), positions.data(), model_.activations,
      [&](int64_t layer, const float* qkv, float* out, float*) {
        for (size_t i = 0; i < segments.size(); ++i) {
          Sequence& s = *sequences[i];
          layer_segments[i].capacity = s.capacity;
          layer_segments[i].cache = s.cache.data() + layer * kv_cache_size(shape, s.capacity);
        }
        attention_cached(model_.pool, shape, layer_segments.data(),
                         static_cast<int64_t>(segments.size()), qkv, out, scratch, scratch_size);
      });
  std::vector<int64_t> rows;
  for (size_t i = 0; i < segments.size(); ++i) {
    sequences[i]->length += segments[i].count;
    rows.push_back(segments[i].row + segments[i].count - 1);
  }
  finish_rows(rows, sequences);
}

void Generation::finish_rows(const std::vector<int64_t>& rows,
                             const std::vector<Sequence*>& sequences) {
  HeadWork work(model_, model_.work.reserve(model_.memory, head_work_size(model_)));
  const int64_t vocab = model_.layout.vocab, d = model_.layout.d;
  const int64_t total = static_cast<int64_t>(rows.size()), chunk = head_chunk_rows(model_);
  std::vector<int32_t> tokens(rows.size());
  std::vector<float> log_probs(rows.size());
  for (int64_t first = 0; first < total; first += chunk) {
    const int64_t count = std::min(chunk, total - first);
    head_logits(model_, model_.activations.last, rows.data() + first, count, work);
    model_.pool.run(
        count,
        [&](int64_t i) {
          const size_t at = static_cast<size_t>(first + i);
          finish_row(work.logits + i * vocab, model_.activations.last + rows[at] * d,
                     *sequences[at], &tokens[at], &log_probs[at]);
        },
        count * vocab > kSmallSampling);
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!std::isfinite(log_probs[i]))
      throw Failure{cov_error(COV_NON_FINITE, "request %d: the logits are not finite",
                              sequences[i]->request)};
    accept(*sequences[i], tokens[i], log_probs[i]);
  }
}

// Draw, log-prob, top log-probs and fingerprint of one sequence's next token.
void Generation::finish_row(const float* logits, const float* hidden, Sequence& sequence,
                            int32_t* token, float* log_prob) {
  const int64_t vocab = model_.layout.vocab;
  const cov_generate_request& r = requests_[sequence.request];
  const cov_generate_output& out = outputs_[sequence.request];
  const size_t worker = static_cast<size_t>(ThreadPool::worker());
  const RowStats stats = kernels().logit_stats(logits, 1.0f, vocab);
  const double lse = static_cast<double>(stats.max) + exact_log(static_cast<double>(stats.sum));
  if (!std::isfinite(lse)) {
    *log_prob = NAN;
    return;
  }
  samplers_[worker].prepare(logits, {r.temperature, r.top_k, r.top_p});
  *token = samplers_[worker].draw(
      cov_uniform_at(r.sampling_seed, static_cast<uint32_t>(out.token_count)));
  *log_prob = static_cast<float>(static_cast<double>(logits[*token]) - lse);
  const int64_t at = out.token_count;
  if (options_.top_count > 0 && (out.top_tokens != nullptr || out.top_log_probs != nullptr))
    top_log_probs(
        logits, vocab, lse, 1.0f, options_.top_count, orders_[worker],
        out.top_tokens == nullptr ? nullptr : out.top_tokens + at * options_.top_count,
        out.top_log_probs == nullptr ? nullptr : out.top_log_probs + at * options_.top_count);
  if (out.fingerprints != nullptr)
    fingerprint_.compute(hidden, normed_[worker].data(),
                         out.fingerprints + at * fingerprint_.dims());
}

void Generation::accept(Sequence& sequence, int32_t token, float log_prob) {
  const cov_generate_request& r = requests_[sequence.request];
  cov_generate_output& out = outputs_[sequence.request];
  const int32_t index = out.token_count;
  out.tokens[index] = token;
  if (out.log_probs != nullptr) out.log_probs[index] = log_prob;
  ++out.token_count;
  const bool stopped = std::find(r.stop_tokens, r.stop_tokens + r.stop_token_count, token) !=
                       r.stop_tokens + r.stop_token_count;
  if (stopped) out.finish_reason = COV_FINISH_STOP;
  if (stopped || out.token_count == r.max_new_tokens) sequence.request = -1 - sequence.request;
  if (options_.on_token != nullptr)
    options_.on_token(options_.context, static_cast<int32_t>(&r - requests_), index, token,
                      log_prob);
}

// Frees the sequences that accept() marked as finished (negative request).
void Generation::sweep() {
  std::erase_if(running_, [](const std::unique_ptr<Sequence>& s) { return s->request < 0; });
}

void Generation::decode() {
  std::vector<CachedSegment> segments;
  std::vector<int32_t> tokens, positions;
  std::vector<Sequence*> sequences;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    const cov_generate_output& out = outputs_[sequence->request];
    segments.push_back({static_cast<int64_t>(tokens.size()), 1, sequence->length, nullptr, 0});
    tokens.push_back(out.tokens[out.token_count - 1]);
    positions.push_back(static_cast<int32_t>(sequence->length));
    sequences.push_back(sequence.get());
  }
  compute(segments, tokens, positions, sequences);
  sweep();
}

cov_status Generation::run() {
  check();
  int64_t longest = 1;
  for (int32_t i = 0; i < count_; ++i) {
    outputs_[i].token_count = 0;
    outputs_[i].finish_reason = COV_FINISH_LENGTH;
    longest = std::max<int64_t>(longest, requests_[i].prompt_length + requests_[i].max_new_tokens);
  }
  const size_t threads = static_cast<size_t>(model_.pool.threads());
  samplers_.assign(threads, Sampler(model_.layout.vocab));
  orders_.assign(
      threads,
      std::vector<int32_t>(static_cast<size_t>(options_.top_count > 0 ? model_.layout.vocab : 0)));
  normed_.assign(threads, std::vector<float>(static_cast<size_t>(model_.layout.d)));
  pack_weights(model_, false);
  prepare_rope(model_, longest);
  while (next_ < count_ || !running_.empty()) {
    if (cancelled(options_.cancel)) return cov_error(COV_CANCELLED, "generation was cancelled");
    admit();
    if (cancelled(options_.cancel)) return cov_error(COV_CANCELLED, "generation was cancelled");
    if (!running_.empty()) decode();
  }
  return cov_ok();
}

}  // namespace
}  // namespace covenant

extern "C" cov_status cov_model_generate(cov_model* model, const cov_generate_request* requests,
                                         int32_t request_count, const cov_generate_options* options,
                                         cov_generate_output* outputs) {
  if (model == nullptr || options == nullptr || request_count < 0 ||
      (request_count > 0 && (requests == nullptr || outputs == nullptr)))
    return cov_error(COV_INVALID_ARGUMENT, "model, requests, options and outputs must be given");
  if (options->fingerprint != nullptr &&
      (options->fingerprint->dims < 1 || options->fingerprint->dims > 64))
    return cov_error(COV_INVALID_ARGUMENT, "fingerprint dims must be in [1, 64]");
  return covenant::guarded([&] {
    return covenant::Generation(*model, requests, request_count, *options, outputs).run();
  });
}
