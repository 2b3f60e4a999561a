#include "generate/generator.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "covenant/rng.h"
#include "engine/head.h"
#include "engine/isa/table.h"
#include "engine/model.h"

namespace covenant {
namespace {

constexpr int32_t kStopTokensMax = 64;
constexpr int32_t kTopMax = 256;
constexpr int64_t kSmallSampling = 1 << 13;  // logits not worth waking a thread for

// Length of the common beginning of two token lists.
int64_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const auto end = a.begin() + static_cast<int64_t>(std::min(a.size(), b.size()));
  return std::mismatch(a.begin(), end, b.begin()).first - a.begin();
}

}  // namespace

void check_request(const cov_model_shape& shape, const cov_generate_request& r,
                   int32_t top_count, int64_t index) {
  const int i = static_cast<int>(index);
  if (top_count < 0 || top_count > std::min(kTopMax, shape.vocab_size))
    throw Failure{cov_error(COV_INVALID_ARGUMENT, "top_count is %d", top_count)};
  if (r.prompt == nullptr || r.prompt_length < 1 || r.max_new_tokens < 1)
    throw Failure{cov_error(COV_INVALID_ARGUMENT,
                            "request %d needs a prompt, max_new_tokens >= 1 and a result buffer",
                            i)};
  if (int64_t{r.prompt_length} + r.max_new_tokens > shape.max_positions)
    throw Failure{cov_error(COV_OUT_OF_RANGE,
                            "request %d: prompt %d + max_new_tokens %d exceeds max_positions %d", i,
                            r.prompt_length, r.max_new_tokens, shape.max_positions)};
  check_sampling({r.temperature, r.top_k, r.top_p}, i);
  if (r.stop_token_count < 0 || r.stop_token_count > kStopTokensMax ||
      (r.stop_token_count > 0 && r.stop_tokens == nullptr))
    throw Failure{
        cov_error(COV_INVALID_ARGUMENT, "request %d: at most %d stop tokens", i, kStopTokensMax)};
  check_tokens(shape, r.prompt, r.prompt_length, "prompt token");
}

Generator::Generator(const cov_model_shape& shape, ThreadPool& threads, RowDecoder& decoder,
                     PageStore& pages, const GeneratorLimits& limits)
    : shape_(shape),
      threads_(threads),
      decoder_(decoder),
      limits_(limits),
      pool_(pages, limits.page_limit),
      samplers_(static_cast<size_t>(threads.threads()), Sampler(shape.vocab_size)),
      orders_(samplers_.size()),
      normed_(samplers_.size(), std::vector<float>(static_cast<size_t>(shape.hidden_size))) {}

// ---- requests ----------------------------------------------------------------------------------

uint64_t Generator::submit(const cov_generate_request& r,
                           const cov_fingerprint_options* fingerprint, int32_t top_count) {
  check_request(shape_, r, top_count, 0);
  if (fingerprint != nullptr && (fingerprint->dims < 1 || fingerprint->dims > 64))
    throw Failure{cov_error(COV_INVALID_ARGUMENT, "fingerprint dims must be in [1, 64]")};
  const int64_t positions = int64_t{r.prompt_length} + r.max_new_tokens - 1;
  if (positions > limits_.positions)
    throw Failure{cov_error(COV_UNSUPPORTED, "a request of %lld positions; at most %lld here",
                            static_cast<long long>(positions),
                            static_cast<long long>(limits_.positions))};
  const int64_t pages = (positions + kPagePositions - 1) / kPagePositions;
  if (limits_.page_limit != 0 && pages > limits_.page_limit)
    throw Failure{cov_error(COV_MEMORY_LIMIT, "the request may need %lld pages, there are %lld",
                            static_cast<long long>(pages),
                            static_cast<long long>(limits_.page_limit))};
  const auto requests = static_cast<int64_t>(running_.size() + waiting_.size());
  if (requests >= limits_.request_limit)
    throw Failure{cov_error(COV_BUSY, "%lld requests are under way already, which is the limit",
                            static_cast<long long>(requests))};
  auto sequence = std::make_unique<Sequence>();
  // Drawing a token must not allocate.
  sequence->tokens.reserve(static_cast<size_t>(r.prompt_length + r.max_new_tokens));
  sequence->tokens.assign(r.prompt, r.prompt + r.prompt_length);
  sequence->prompt_length = r.prompt_length;
  sequence->max_new_tokens = r.max_new_tokens;
  sequence->sampling = {r.temperature, r.top_k, r.top_p};
  sequence->stops.assign(r.stop_tokens, r.stop_tokens + r.stop_token_count);
  std::memcpy(sequence->seed, r.sampling_seed, sizeof sequence->seed);
  sequence->top_count = top_count;
  if (fingerprint != nullptr) {
    if (fingerprint_ == nullptr || fingerprint_options_.dims != fingerprint->dims ||
        std::memcmp(fingerprint_options_.seed, fingerprint->seed, sizeof fingerprint->seed) != 0) {
      fingerprint_ = std::make_shared<Fingerprint>(fingerprint, shape_.hidden_size,
                                                   static_cast<float>(shape_.rms_norm_eps));
      fingerprint_options_ = *fingerprint;
    }
    sequence->fingerprint = fingerprint_;
    sequence->fingerprint_bytes.resize(static_cast<size_t>(fingerprint->dims));
  }
  sequence->top_tokens.resize(static_cast<size_t>(top_count));
  sequence->top_log_probs.resize(static_cast<size_t>(top_count));
  if (top_count > 0)
    for (std::vector<int32_t>& order : orders_)
      order.resize(static_cast<size_t>(shape_.vocab_size));
  sequence->id = next_id_++;
  waiting_.push_back(std::move(sequence));
  return next_id_ - 1;
}

bool Generator::cancel(uint64_t id) {
  const auto is_it = [id](const std::unique_ptr<Sequence>& s) { return s->id == id; };
  if (std::erase_if(waiting_, is_it) > 0) return true;
  const auto found = std::find_if(running_.begin(), running_.end(), is_it);
  if (found == running_.end()) return false;
  (*found)->ended = true;
  sweep();
  return true;
}

// Removes what has ended.
void Generator::sweep() {
  const size_t before = running_.size();
  for (std::unique_ptr<Sequence>& sequence : running_)
    if (sequence->ended) sequence->pages.clear(pool_);
  std::erase_if(running_, [](const std::unique_ptr<Sequence>& s) { return s->ended; });
  if (running_.size() < before) exhausted_ = false;
}

cov_generator_state Generator::state() const {
  cov_generator_state state = {};
  state.running = static_cast<int32_t>(running_.size());
  state.waiting = static_cast<int32_t>(waiting_.size());
  state.pages = pool_.used();
  state.page_limit = pool_.limit();
  state.page_bytes = pool_.page_bytes();
  state.computed_rows = computed_rows_;
  state.shared_rows = shared_rows_;
  state.preemptions = preemptions_;
  return state;
}

// ---- schedule ----------------------------------------------------------------------------------

// Takes over pages of a running sequence that begins alike. False when it is better to wait,
// because a running sequence is about to compute the same rows.
bool Generator::share_prefix(Sequence& sequence) {
  const Sequence* donor = nullptr;
  int64_t best = kPagePositions - 1;  // less than a page is not worth the copy
  for (const std::unique_ptr<Sequence>& other : running_) {
    const int64_t common =
        std::min(common_prefix(sequence.tokens, other->tokens), sequence.length() - 1);
    if (common - other->cached >= kPagePositions) return false;
    const int64_t there = std::min(common, other->cached);
    if (there <= best) continue;
    best = there;
    donor = other.get();
  }
  if (donor == nullptr) return true;
  sequence.pages.share(pool_, donor->pages, best);
  sequence.cached = best;
  shared_rows_ += best;
  return true;
}

void Generator::admit() {
  if (running_.empty()) exhausted_ = false;
  const auto going = [](const std::unique_ptr<Sequence>& s) { return !s->ended; };
  int64_t room = limits_.batch - std::count_if(running_.begin(), running_.end(), going);
  for (auto it = waiting_.begin(); !exhausted_ && room > 0 && it != waiting_.end();) {
    running_.reserve(running_.size() + 1);  // so that what follows cannot fail half-way
    if (!share_prefix(**it)) {
      ++it;
      continue;
    }
    running_.push_back(std::move(*it));
    it = waiting_.erase(it);
    --room;
  }
}

void Generator::preempt_youngest() {
  waiting_.push_front(nullptr);  // may be refused; nothing has changed then
  waiting_.front() = std::move(running_.back());
  running_.pop_back();
  waiting_.front()->pages.clear(pool_);
  waiting_.front()->cached = 0;
  waiting_.front()->scheduled = 0;
  exhausted_ = true;
  ++preemptions_;
}

// Reserves the pages of running_[index]'s rows, at the cost of younger sequences if need be. False
// when the sequence itself had to leave.
bool Generator::make_room(size_t index) {
  Sequence& sequence = *running_[index];
  const int64_t to = sequence.cached + sequence.scheduled;
  while (!sequence.pages.reserve(pool_, sequence.cached, to)) {
    const bool last = index + 1 == running_.size();
    if (last && index == 0)
      throw NoRoom{cov_error(static_cast<cov_code>(pool_.refusal().code),
                             "no page for position %lld: %.180s", static_cast<long long>(to - 1),
                             pool_.refusal().message)};
    preempt_youngest();
    if (last) return false;
  }
  return true;
}

void Generator::schedule() {
  int64_t budget = limits_.step_rows;
  for (std::unique_ptr<Sequence>& sequence : running_) {
    sequence->scheduled = sequence->length() - sequence->cached == 1 ? 1 : 0;
    budget -= sequence->scheduled;
  }
  budget = std::max(budget, kPagePositions);  // prompts move on whatever decodes
  for (std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->scheduled != 0) continue;
    sequence->scheduled = std::min(budget, sequence->length() - sequence->cached);
    budget -= sequence->scheduled;
  }
  rows_.clear();
  ready_.clear();
  ready_.reserve(running_.size());
  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i]->scheduled == 0 || !make_room(i)) continue;
    Sequence& s = *running_[i];
    rows_.add(s.tokens.data() + s.cached, s.scheduled, s.cached, &s.pages);
    if (s.cached + s.scheduled != s.length()) continue;
    rows_.drawn.push_back(rows_.count() - 1);
    rows_.hidden = rows_.hidden || s.fingerprint != nullptr;
    ready_.push_back(&s);
  }
}

bool Generator::begin(const Listener& listener) {
  sweep();
  if (idle()) return false;
  admit();
  try {
    schedule();
  } catch (const NoRoom& none) {
    // The sequence fails, the others go on without it.
    const std::unique_ptr<Sequence> sequence = std::move(running_.front());
    sequence->pages.clear(pool_);
    running_.clear();
    exhausted_ = false;
    fail(*sequence, none.status, listener);
    return false;
  }
  decoder_.run(rows_);
  return true;
}

void Generator::end(const Listener& listener) {
  decoder_.finish();
  draw();
  // From here on nothing fails, or a sequence would wait for a token that nobody draws.
  computed_rows_ += rows_.count();
  for (std::unique_ptr<Sequence>& s : running_) {
    s->cached += s->scheduled;
    s->scheduled = 0;
  }
  announce(listener);
}

// ---- tokens ------------------------------------------------------------------------------------

void Generator::draw() {
  const int64_t vocab = shape_.vocab_size, chunk = decoder_.logit_rows();
  const int64_t total = rows_.drawn_count();
  for (int64_t first = 0; first < total; first += chunk) {
    const int64_t count = std::min(chunk, total - first);
    const float* logits = decoder_.logits(first, count);
    threads_.run(
        count,
        [&](int64_t i) {
          Sequence& s = *ready_[static_cast<size_t>(first + i)];
          const float* hidden = s.fingerprint == nullptr ? nullptr : decoder_.hidden(first + i);
          draw_row(logits + i * vocab, hidden, s);
        },
        count * vocab > kSmallSampling);
  }
}

void Generator::announce(const Listener& listener) {
  bool ended = false;
  for (Sequence* sequence : ready_) {
    sequence->ended = finish(*sequence, listener);
    ended = ended || sequence->ended;
  }
  if (!ended) return;
  admit();  // before the pages go: who waits may share them
  sweep();
}

// Token, log-prob, top log-probs and fingerprint of one sequence.
void Generator::draw_row(const float* logits, const float* hidden, Sequence& s) {
  const int64_t vocab = shape_.vocab_size;
  const size_t worker = static_cast<size_t>(ThreadPool::worker());
  const RowStats stats = kernels().logit_stats(logits, 1.0f, vocab);
  const double lse = static_cast<double>(stats.max) + exact_log(static_cast<double>(stats.sum));
  s.log_prob = NAN;
  if (!std::isfinite(lse)) return;
  const uint32_t index = static_cast<uint32_t>(s.drawn());
  samplers_[worker].prepare(logits, s.sampling);
  s.token = samplers_[worker].draw(cov_uniform_at(s.seed, index));
  s.log_prob = static_cast<float>(static_cast<double>(logits[s.token]) - lse);
  if (s.top_count > 0)
    top_log_probs(logits, vocab, lse, 1.0f, s.top_count, orders_[worker], s.top_tokens.data(),
                  s.top_log_probs.data());
  if (s.fingerprint != nullptr)
    s.fingerprint->compute(hidden, normed_[worker].data(), s.fingerprint_bytes.data());
}

// Tells of the token drawn; true when the sequence has ended.
bool Generator::finish(Sequence& s, const Listener& listener) {
  if (!std::isfinite(s.log_prob)) {
    fail(s, cov_error(COV_NON_FINITE, "the logits are not finite"), listener);
    return true;
  }
  s.tokens.push_back(s.token);
  cov_generator_event event = {};
  event.request = s.id;
  event.index = static_cast<int32_t>(s.drawn() - 1);
  event.token = s.token;
  event.log_prob = s.log_prob;
  event.fingerprint = s.fingerprint == nullptr ? nullptr : s.fingerprint_bytes.data();
  event.top_tokens = s.top_count > 0 ? s.top_tokens.data() : nullptr;
  event.top_log_probs = s.top_count > 0 ? s.top_log_probs.data() : nullptr;
  event.finish_reason = COV_FINISH_NOT_YET;
  if (std::find(s.stops.begin(), s.stops.end(), event.token) != s.stops.end())
    event.finish_reason = COV_FINISH_STOP;
  else if (s.drawn() == s.max_new_tokens)
    event.finish_reason = COV_FINISH_LENGTH;
  event.status = cov_ok();
  listener(event);
  return event.finish_reason != COV_FINISH_NOT_YET;
}

void Generator::fail(Sequence& s, const cov_status& status, const Listener& listener) {
  cov_generator_event event = {};
  event.request = s.id;
  event.index = static_cast<int32_t>(s.drawn());
  event.token = -1;
  event.finish_reason = COV_FINISH_FAILED;
  event.status = status;
  listener(event);
}

}  // namespace covenant
