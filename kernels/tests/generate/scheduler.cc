// The scheduler over pages and a decoder that keep account of what is asked of them, and fail at random: requests that
// join, leave, lose their pages and share them yield what they yield alone, every page comes back, no page of two
// sequences is written, and no step is larger than its bounds, which devices allocate for.
#include <numeric>
#include <set>

#include "generate/generator.h"
#include "schedules.h"

namespace {

using namespace covenant_test;
using covenant::DecoderRows;
using covenant::DecoderSegment;
using covenant::Failure;
using covenant::Generator;
using covenant::GeneratorLimits;
using covenant::kPagePositions;
using covenant::PageStore;
using covenant::RowDecoder;
using covenant::ThreadPool;

constexpr cov_model_shape kShape = {13, 4, 4, 1, 1, 1, 150, 1, 10000.0, 1e-5};
constexpr int32_t kBroken = 12;  // a token whose logits are not finite

// Fails every so often, when asked to.
class Faults {
 public:
  explicit Faults(uint32_t seed) : numbers_(seed) {}
  int32_t one_in = 0;  // 0: never
  int64_t thrown = 0;
  void meet(cov_code code) {
    if (one_in == 0 || numbers_.below(one_in) != 0) return;
    ++thrown;
    throw Failure{cov_error(code, "as the test wishes")};
  }

 private:
  Numbers numbers_;
};

// Tokens take the place of keys and values.
class Pages final : public PageStore {
 public:
  Pages(Faults& faults, int64_t room, int64_t chunk) : faults_(faults), room_(room), chunk_(chunk) {}
  uint64_t page_bytes() const override { return 64; }
  int64_t growth(int64_t) const override { return chunk_; }
  void reserve(int64_t pages) override {
    if (pages > room_) throw Failure{cov_error(COV_MEMORY_LIMIT, "no room")};
    faults_.meet(COV_OUT_OF_MEMORY);
    tokens_.resize(static_cast<size_t>(std::max(pages * kPagePositions, static_cast<int64_t>(tokens_.size()))), -7);
  }
  void prepare(int32_t page) override { std::fill_n(&at(page, 0), kPagePositions, -9); }
  void copy(int32_t to, int32_t from) override {
    faults_.meet(COV_INTERNAL);
    std::copy_n(&at(from, 0), kPagePositions, &at(to, 0));
  }
  int32_t& at(int32_t page, int64_t slot) { return tokens_[static_cast<size_t>(page * kPagePositions + slot)]; }

 private:
  Faults& faults_;
  int64_t room_, chunk_;
  std::vector<int32_t> tokens_;
};

// A row's logits and hidden state are a function of all tokens that its pages hold up to its position.
class Account final : public RowDecoder {
 public:
  Account(Faults& faults, Pages& pages, const GeneratorLimits& limits, int64_t logit_rows)
      : faults_(faults), pages_(pages), limits_(limits), logit_rows_(logit_rows) {}

  void run(const DecoderRows& rows) override {
    CHECK(rows.count() > 0 && rows.count() <= std::max<int64_t>(limits_.step_rows, limits_.batch + kPagePositions));
    CHECK(static_cast<int64_t>(rows.segments.size()) <= limits_.batch);
    CHECK(std::is_sorted(rows.drawn.begin(), rows.drawn.end()) && rows.drawn_count() <= limits_.batch);
    check_owners(rows);
    faults_.meet(COV_INTERNAL);
    drawn_ = rows.drawn;
    rows_.assign(static_cast<size_t>(rows.count()), 0);
    for (const DecoderSegment& s : rows.segments) {
      const std::vector<int32_t>& pages = s.pages->pages();
      CHECK(static_cast<int64_t>(pages.size()) == (s.start + s.count + kPagePositions - 1) / kPagePositions);
      uint32_t hash = 17;
      bool broken = false;
      for (int64_t t = 0; t < s.start + s.count; ++t) {
        int32_t& token = pages_.at(pages[static_cast<size_t>(t / kPagePositions)], t % kPagePositions);
        if (t >= s.start) token = rows.tokens[static_cast<size_t>(s.row + t - s.start)];
        hash = (hash ^ static_cast<uint32_t>(token + 1)) * 16777619u + (hash >> 15);
        broken = broken || token == kBroken;
        if (t >= s.start) CHECK(rows.positions[static_cast<size_t>(s.row + t - s.start)] == t);
        if (t >= s.start) rows_[static_cast<size_t>(s.row + t - s.start)] = broken ? 0 : hash | 1;
      }
    }
    faults_.meet(COV_INTERNAL);  // after the rows were written
    next_ = 0;
  }

  int64_t logit_rows() const override { return logit_rows_; }
  const float* logits(int64_t first, int64_t count) override {
    CHECK(first == next_ && count <= logit_rows_);
    faults_.meet(COV_INTERNAL);
    next_ = first + count;
    logits_.clear();
    for (int64_t i = first; i < next_; ++i)
      for (uint32_t v = 0; v < 13; ++v) {
        const uint32_t hash = of(i);
        logits_.push_back(hash == 0 ? NAN : static_cast<float>((hash >> 3) * (v + 3) % 101) * 0.05f);
      }
    // Far from likely, so that few sequences break by themselves.
    for (int64_t i = 0; i < count; ++i) logits_[static_cast<size_t>(i * 13 + kBroken)] -= 9.0f;
    hidden_.clear();
    for (int64_t i = first; i < next_; ++i)
      for (int shift = 0; shift < 4; ++shift) hidden_.push_back(static_cast<float>(of(i) >> (4 * shift) & 15u) - 7.0f);
    hidden_first_ = first;
    return logits_.data();
  }
  const float* hidden(int64_t i) const override { return hidden_.data() + (i - hidden_first_) * 4; }

 private:
  uint32_t of(int64_t i) const { return rows_[static_cast<size_t>(drawn_[static_cast<size_t>(i)])]; }
  // Pages that a sequence writes are of no other one of the step.
  void check_owners(const DecoderRows& rows) const {
    std::multiset<int32_t> all;
    for (const DecoderSegment& s : rows.segments) all.insert(s.pages->pages().begin(), s.pages->pages().end());
    for (const DecoderSegment& s : rows.segments)
      for (size_t i = static_cast<size_t>(s.start / kPagePositions); i < s.pages->pages().size(); ++i)
        CHECK(all.count(s.pages->pages()[i]) == 1);
  }

  Faults& faults_;
  Pages& pages_;
  GeneratorLimits limits_;
  int64_t logit_rows_, next_ = 0, hidden_first_ = 0;
  std::vector<int64_t> drawn_;
  std::vector<uint32_t> rows_;
  std::vector<float> logits_, hidden_;
};

std::vector<Job> jobs_for(uint32_t seed) {
  std::vector<Job> jobs = make_jobs(kShape, 12, seed);
  Numbers numbers(seed + 1);
  for (Job& job : jobs) {
    for (int32_t& token : job.prompt)
      if (token == kBroken) token = 0;
    if (numbers.below(8) == 0) job.prompt.back() = kBroken;
    job.request.max_new_tokens = 1 + numbers.below(60);
  }
  return jobs;
}

uint64_t submit(Generator& generator, const Job& job) { return generator.submit(job.request, &kFingerprint, 2); }

Completion by_itself(const Job& job) {
  Faults none(0);
  Pages pages(none, 1000, 1);
  const GeneratorLimits limits = {1, 1000, 0};
  Account decoder(none, pages, limits, 1);
  ThreadPool threads(1);
  Generator generator(kShape, threads, decoder, pages, limits);
  Completions completions;
  submit(generator, job);
  while (!generator.idle()) generator.step([&](const cov_generator_event& event) { take(&completions, &event); });
  return completions[1];
}

// Everything at random, from limits to faults; returns how many faults there were.
int64_t schedule(uint32_t seed, const std::vector<Job>& jobs, const std::vector<Completion>& expected,
                 cov_generator_state* last) {
  Numbers numbers(seed);
  Faults faults(seed + 1);
  faults.one_in = seed % 3 == 0 ? 0 : 5 + numbers.below(60);
  const int64_t least = (kShape.max_positions + kPagePositions - 1) / kPagePositions;
  const bool bounded = numbers.below(2) == 0;
  Pages pages(faults, bounded ? 1000 : least + numbers.below(10), 1 + numbers.below(9));
  const GeneratorLimits limits = {1 + numbers.below(7), 1 + numbers.below(50), bounded ? least + numbers.below(10) : 0};
  Account decoder(faults, pages, limits, 1 + numbers.below(3));
  ThreadPool threads(seed % 5 == 0 ? 3 : 1);
  Generator generator(kShape, threads, decoder, pages, limits);
  Completions completions;
  std::map<uint64_t, size_t> job_of;
  std::set<uint64_t> gone;
  size_t next = 0;
  for (int steps = 0; next < jobs.size() || !generator.idle(); ++steps) {
    CHECK(steps < 20000);
    if (steps == 20000) break;
    if (next < jobs.size() && numbers.below(4) == 0) {
      job_of[submit(generator, jobs[next])] = next;
      ++next;
    }
    if (next > 0 && numbers.below(30) == 0) {
      const uint64_t id = 1 + static_cast<uint64_t>(numbers.below(static_cast<int32_t>(next)));
      const bool ended = completions[id].reason != COV_FINISH_NOT_YET || gone.count(id) > 0;
      CHECK(generator.cancel(id) == !ended);
      gone.insert(id);
    }
    const cov_generator_state before = generator.state();
    const size_t events = completions.size();
    try {
      generator.step([&](const cov_generator_event& event) { take(&completions, &event); });
    } catch (const Failure&) {
      const cov_generator_state after = generator.state();
      CHECK(after.running + after.waiting == before.running + before.waiting);
      CHECK(after.computed_rows == before.computed_rows && completions.size() == events);
    }
    *last = generator.state();
    CHECK(limits.page_limit == 0 || last->pages <= limits.page_limit);
    CHECK(last->running <= limits.batch);
  }
  for (const auto& [id, job] : job_of) {
    const Completion& found = completions[id];
    CHECK(begins_like(found, expected[job]));
    // No room is a failure, too, where the only sequence meets it.
    if (gone.count(id) > 0 || found.status.code == COV_OUT_OF_MEMORY) continue;
    CHECK(found.reason == expected[job].reason && found.status.code == expected[job].status.code);
    CHECK(found.tokens.size() == expected[job].tokens.size());
  }
  CHECK(last->pages == 0 && last->running == 0 && last->waiting == 0);
  return faults.thrown;
}

}  // namespace

int main() {
  int64_t faults = 0, preemptions = 0, shared = 0, broken = 0;
  const uint32_t rounds = unless_sanitized(60u, 6u);
  for (uint32_t round = 0; round < rounds; ++round) {
    const std::vector<Job> jobs = jobs_for(round);
    std::vector<Completion> expected;
    for (const Job& job : jobs) expected.push_back(by_itself(job));
    for (const Completion& one : expected) broken += one.status.code == COV_NON_FINITE ? 1 : 0;
    for (uint32_t seed = 0; seed < 12; ++seed) {
      cov_generator_state state = {};
      faults += schedule(round * 100 + seed, jobs, expected, &state);
      preemptions += state.preemptions;
      shared += state.shared_rows;
    }
  }
  std::printf("%u schedules: %lld faults, %lld preemptions, %lld shared rows, %lld requests that break\n", 12 * rounds,
              static_cast<long long>(faults), static_cast<long long>(preemptions), static_cast<long long>(shared),
              static_cast<long long>(broken));
  CHECK(faults > 20 && preemptions > 20 && shared > 100 && broken > 2);
  TEST_MAIN_END("generate/scheduler");
}
