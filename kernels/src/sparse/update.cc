// Merging and applying in one: the sums of a chunk never leave the cache.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "core/given.h"
#include "core/thread_pool.h"
#include "covenant/model.h"
#include "sparse/path.h"
#include "sparse/peers.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace covenant::sparse {
namespace {

constexpr uint64_t kChunksPerTask = 16;

struct Task {
  int32_t tensor;
  uint64_t first;
  uint64_t end;
};

// What one peer sends of one tensor.
struct Sender {
  const uint8_t* bytes;
  TensorHeader header;
  float factor;
  float weight;

  // What a value of a chunk with this scale code is added as, by sign and level.
  std::array<float, 4> terms(int32_t scale_code) const {
    const int32_t scale = header.top_scale - kScaleCodeMax + scale_code;
    const float low = weight * (factor * power(2 * scale + header.levels.low));
    const float high = weight * (factor * power(2 * scale + header.levels.high));
    return {low, -low, high, -high};
  }
};

// One peer's full chunk, decoded.
struct Sent {
  uint16_t indices[64];
  const uint8_t* codes;
  std::array<float, 4> terms;
  float weight;
};

// What a thread works in. The sums are cleared by whoever reads them.
struct Scratch {
  Tally tally;
  SumAndWeight sums[COV_SPARSE_CHUNK];
  std::vector<Sender> senders;
  std::vector<Sent> sent;
};

// Both sums at once: the loop over the values is what most of the time goes into.
inline void add_term(SumAndWeight& sum, const SumAndWeight& term) {
#if defined(__x86_64__)
  const __m128 both = _mm_add_ps(
      _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&sum))),
      _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&term))));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(&sum), _mm_castps_si128(both));
#else
  sum = {sum.sum + term.sum, sum.weight + term.weight};
#endif
}

// Lines of parameters asked for while the values of one peer are added.
constexpr size_t kLinesPerPeer = 16;
constexpr size_t kLinesPerChunk = COV_SPARSE_CHUNK / 16;
constexpr size_t kFloatsPerPage = 1024;

// Calls add(index, code) for each of 64 values of kBits, four to a turn of the loop. Where `ahead` is
// given each turn asks for a line from there: asking for many at once stops the processor until the
// first have come. They go to the second cache, because the sums need the first.
template <int kBits, typename Add>
inline void each_value(const Sent& sent, const float* ahead, const Add& add) {
#pragma GCC unroll 1
  for (size_t turn = 0; turn < kLinesPerPeer; ++turn) {
    if (ahead != nullptr) __builtin_prefetch(ahead + 16 * turn, 0, 2);
    const uint32_t codes =
        kBits == 2 ? sent.codes[turn] : static_cast<uint32_t>(sent.codes[turn / 2]) >> turn % 2 * 4;
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j)
      add(sent.indices[4 * turn + j], codes >> j * kBits & ((1u << kBits) - 1));
  }
}

class Updater {
 public:
  Updater(float* parameters, const Peers& peers, const cov_tensor_info* tensors,
          int32_t tensor_count, cov_sparse_format format, float rate, float divisor, int threads)
      : parameters_(parameters),
        peers_(peers),
        tensors_(tensors),
        format_(format),
        full_(COV_SPARSE_CHUNK, format),
        rate_(rate),
        divisor_(divisor),
        tallied_(find_divisors()),
        scratch_(static_cast<size_t>(threads)) {
    for (Scratch& scratch : scratch_) {
      scratch.senders.resize(peers.count());
      scratch.sent.resize(peers.count());
    }
    for (int32_t t = 0; t < tensor_count; ++t) {
      const uint64_t chunks = chunk_count(tensors[t].length);
      for (uint64_t first = 0; first < chunks; first += kChunksPerTask)
        tasks_.push_back({t, first, std::min(chunks, first + kChunksPerTask)});
    }
  }

  void run(ThreadPool& pool) {
    pool.run(static_cast<int64_t>(tasks_.size()),
             [this](int64_t index) { update(tasks_[static_cast<size_t>(index)]); });
  }

 private:
  // Whether the divisor of a value follows from how many sent it: one for all, or the sums that
  // adding up equal weights gives.
  bool find_divisors() {
    if (peers_.count() > Tally::kPeersMax) return false;
    divisors_.fill(1.0f);
    float sum = 0;
    for (size_t p = 0; p < peers_.count(); ++p) {
      if (divisor_ == 0 && peers_.weight(p) != peers_.weight(0)) return false;
      sum = sum + peers_.weight(p);
      divisors_[p + 1] = divisor_ != 0 ? divisor_ : sum;
    }
    return true;
  }

  void update(const Task& task) {
    Scratch& scratch = scratch_[static_cast<size_t>(ThreadPool::worker())];
    const int32_t t = task.tensor;
    for (size_t p = 0; p < peers_.count(); ++p) {
      Sender& sender = scratch.senders[p];
      sender = {peers_.tensor_bytes(t, p), {}, peers_.factor(t, p), peers_.weight(p)};
      read_tensor_header(sender.bytes, format_, sender.header);
    }
    for (uint64_t c = task.first; c < task.end; ++c) {
      const int32_t n = chunk_length(tensors_[t].length, c);
      float* const theta = parameters_ + tensors_[t].offset + c * COV_SPARSE_CHUNK;
      if (n != COV_SPARSE_CHUNK || full_.kept != 64) {
        add_any(c, n, scratch);
        path_.apply(theta, scratch.sums, n, rate_, divisor_);
        continue;
      }
      // Page addresses of the next chunk are translated while this one is decoded.
      for (size_t page = 0; page <= COV_SPARSE_CHUNK / kFloatsPerPage; ++page)
        __builtin_prefetch(theta + COV_SPARSE_CHUNK + page * kFloatsPerPage, 0, 2);
      const size_t sending = decode_full(c, scratch);
      if (tallied_) {
        add_full(theta, sending, scratch, [&scratch](const Sent& sent) {
          return [&tally = scratch.tally, terms = sent.terms.data()](size_t index, size_t code) {
            tally.sums[index] = tally.sums[index] + terms[code];
            ++tally.counts[index];
          };
        });
        path_.apply_tally(theta, scratch.tally, rate_, divisors_.data());
      } else {
        add_full(theta, sending, scratch, [&scratch](const Sent& sent) {
          std::array<SumAndWeight, 4> terms;
          for (size_t code = 0; code < 4; ++code) terms[code] = {sent.terms[code], sent.weight};
          return [sums = scratch.sums, terms](size_t index, size_t code) {
            add_term(sums[index], terms[code]);
          };
        });
        path_.apply(theta, scratch.sums, n, rate_, divisor_);
      }
    }
  }

  // Reads what the peers send of a full chunk and returns how many send something. Bodies are
  // validated, so that decoding cannot fail. All before the first is added, because the loops over
  // the values then follow each other without a pause.
  size_t decode_full(uint64_t c, Scratch& scratch) const {
    size_t sending = 0;
    for (const Sender& sender : scratch.senders) {
      const uint8_t* const bytes = sender.bytes + chunk_at(c, full_, format_);
      // There are more peers than the processor follows streams.
      __builtin_prefetch(bytes + full_.bytes() + 16);
      __builtin_prefetch(bytes + full_.bytes() + 80);
      if (bytes[0] == 0) continue;
      Sent& sent = scratch.sent[sending++];
      path_.decode64(bytes + 1, sent.indices);
      sent.codes = bytes + 1 + full_.low_bytes + full_.upper_bytes;
      sent.terms = sender.terms(bytes[0]);
      sent.weight = sender.weight;
    }
    return sending;
  }

  // adder(sent) returns add(index, code) for the values of one peer.
  template <typename Adder>
  void add_full(const float* theta, size_t sending, const Scratch& scratch,
                const Adder& adder) const {
    for (size_t s = 0; s < sending; ++s) {
      const Sent& sent = scratch.sent[s];
      const float* const ahead =
          s < kLinesPerChunk / kLinesPerPeer
              ? theta + COV_SPARSE_CHUNK + s * kLinesPerPeer * 16
              : nullptr;
      const auto add = adder(sent);
      format_.mode == 2 ? each_value<2>(sent, ahead, add) : each_value<1>(sent, ahead, add);
    }
  }

  // A chunk of any length that keeps any number of values.
  void add_any(uint64_t c, int32_t n, Scratch& scratch) const {
    const ChunkLayout layout(n, format_);
    Chunk chunk;
    for (const Sender& sender : scratch.senders) {
      read_chunk(sender.bytes + chunk_at(c, full_, format_), layout, format_.mode,
                 sender.header.top_scale, sender.header.levels, chunk);
      for (int32_t j = 0; j < chunk.kept; ++j) {
        const float weighted = sender.weight * (sender.factor * chunk.values[j]);
        add_term(scratch.sums[chunk.indices[j]], {weighted, sender.weight});
      }
    }
  }

  float* const parameters_;
  const Peers& peers_;
  const cov_tensor_info* const tensors_;
  const cov_sparse_format format_;
  const ChunkLayout full_;
  const float rate_;
  const float divisor_;
  const SparsePath& path_ = sparse_path();
  std::array<float, Tally::kPeersMax + 1> divisors_{};
  const bool tallied_;
  std::vector<Scratch> scratch_;  // for each thread
  std::vector<Task> tasks_;
};

// Whether no sum or mean can overflow, so that no tensor need be skipped: weights of sane size, and
// the sum of all peers' largest values far below the largest fp32.
bool surely_finite(const Peers& peers, const cov_tensor_info* tensors, int32_t tensor_count,
                   cov_sparse_format format) {
  for (size_t p = 0; p < peers.count(); ++p) {
    if (!(peers.weight(p) >= 0x1p-60f && peers.weight(p) <= 0x1p60f)) return false;
  }
  for (int32_t t = 0; t < tensor_count; ++t) {
    if (tensors[t].length == 0) continue;
    double bound = 0;
    for (size_t p = 0; p < peers.count(); ++p) {
      TensorHeader header;
      read_tensor_header(peers.tensor_bytes(t, p), format, header);
      bound += static_cast<double>(peers.weight(p)) * static_cast<double>(peers.factor(t, p)) *
               static_cast<double>(power(2 * header.top_scale + header.levels.high));
    }
    if (!(bound < 0x1p120)) return false;
  }
  return true;
}

}  // namespace
}  // namespace covenant::sparse

using namespace covenant::sparse;
using covenant::unless_empty;

cov_status cov_sparse_update(float* parameters, uint64_t length, const cov_merge_input* input,
                             const cov_tensor_info* tensors, int32_t tensor_count,
                             cov_sparse_format format, float rate, int32_t threads,
                             int32_t* skipped, int32_t* skipped_count) {
  const auto floats = static_cast<int64_t>(length);
  if (cov_status status = covenant::given(
          "parameters, input, skipped and skipped_count", unless_empty(parameters, floats), input,
          unless_empty(skipped, tensor_count), skipped_count);
      status.code != COV_OK) {
    return status;
  }
  *skipped_count = 0;
  if (!std::isfinite(rate))
    return cov_error(COV_INVALID_ARGUMENT, "outerLearningRate is not finite");
  if (cov_status status = check_tensors(tensors, tensor_count, length); status.code != COV_OK)
    return status;
  if (cov_status status = check_merge_input(*input); status.code != COV_OK) return status;
  if (cov_status status = check_format(format); status.code != COV_OK) return status;
  try {
    covenant::ThreadPool pool(threads > 0 ? threads : cov_default_threads());
    Peers peers(*input, tensors, tensor_count, format);
    if (cov_status status = peers.check(pool); status.code != COV_OK) return status;
    peers.find_factors(pool);
    if (surely_finite(peers, tensors, tensor_count, format)) {
      const float divisor = input->rule == COV_MERGE_ALL ? peers.total_weight() : 0.0f;
      Updater(parameters, peers, tensors, tensor_count, format, rate, divisor, pool.threads())
          .run(pool);
      return cov_ok();
    }
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory for the updates");
  }
  cov_bytes merged{};
  cov_status status =
      cov_sparse_merge(input, tensors, tensor_count, format, threads, &merged);
  if (status.code != COV_OK) return status;
  status = cov_merged_apply(parameters, length, merged.data, merged.length, tensors, tensor_count,
                            rate, skipped, skipped_count);
  cov_bytes_free(&merged);
  return status;
}
