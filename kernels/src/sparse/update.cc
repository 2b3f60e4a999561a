// Merging and applying in one: the sums of a chunk never leave the cache.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

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
        sums_(std::make_unique<SumAndWeight[]>(static_cast<size_t>(threads) * COV_SPARSE_CHUNK)) {
    for (int32_t t = 0; t < tensor_count; ++t) {
      const uint64_t chunks = chunk_count(tensors[t].length);
      for (uint64_t first = 0; first < chunks; first += kChunksPerTask)
        tasks_.push_back({t, first, std::min(chunks, first + kChunksPerTask)});
    }
  }

  void run(ThreadPool& pool) {
    pool.run(static_cast<int64_t>(tasks_.size()), [this](int64_t index) {
      const Task& task = tasks_[static_cast<size_t>(index)];
      for (uint64_t c = task.first; c < task.end; ++c) update_chunk(task.tensor, c);
    });
  }

 private:
  void update_chunk(int32_t t, uint64_t c) {
    SumAndWeight* const sums =
        sums_.get() + static_cast<size_t>(ThreadPool::worker()) * COV_SPARSE_CHUNK;
    const int32_t n = chunk_length(tensors_[t].length, c);
    float* const theta = parameters_ + tensors_[t].offset + c * COV_SPARSE_CHUNK;
    const auto peers = static_cast<int32_t>(peers_.count());
    const int32_t share = (COV_SPARSE_CHUNK / 16 + peers - 1) / peers * 16;
    for (size_t p = 0; p < peers_.count(); ++p) {
      // There are more peers than the processor follows streams, and long pauses between reading
      // parameters: what the next chunk needs is asked for here.
      const float* const own = theta + COV_SPARSE_CHUNK + static_cast<int32_t>(p) * share;
      for (int32_t i = 0; i < share; i += 16) __builtin_prefetch(own + i, 1);
      const uint8_t* const next = peers_.tensor_bytes(t, p) + chunk_at(c + 1, full_, format_);
      __builtin_prefetch(next);
      __builtin_prefetch(next + 64);
      add(t, c, n, p, sums);
    }
    path_.apply(theta, sums, n, rate_, divisor_);
  }

  // Bodies are validated, so reading cannot fail.
  void add(int32_t t, uint64_t c, int32_t n, size_t p, SumAndWeight* sums) const {
    const uint8_t* const tensor = peers_.tensor_bytes(t, p);
    const uint8_t* const bytes = tensor + chunk_at(c, full_, format_);
    if (bytes[0] == 0) return;
    TensorHeader header;
    read_tensor_header(tensor, format_, header);
    const float weight = peers_.weight(p);
    const float factor = peers_.factor(t, p);
    if (n != COV_SPARSE_CHUNK || full_.kept != 64) {
      Chunk chunk;
      read_chunk(bytes, ChunkLayout(n, format_), format_.mode, header.top_scale, header.levels,
                 chunk);
      for (int32_t j = 0; j < chunk.kept; ++j) {
        SumAndWeight& sum = sums[chunk.indices[j]];
        const float weighted = weight * (factor * chunk.values[j]);
        add_term(sum, {weighted, weight});
      }
      return;
    }
    // All there is to add are four values, by sign and level.
    const int32_t scale = header.top_scale - kScaleCodeMax + bytes[0];
    SumAndWeight terms[4];
    for (uint32_t code = 0; code < 4; ++code) {
      const float magnitude =
          power(2 * scale + (code & 2 ? header.levels.high : header.levels.low));
      terms[code] = {weight * (factor * (code & 1 ? -magnitude : magnitude)), weight};
    }
    uint16_t indices[64];
    path_.decode64(bytes + 1, indices);
    const uint8_t* const codes = bytes + 1 + full_.low_bytes + full_.upper_bytes;
    format_.mode == 2 ? add_terms<2>(codes, indices, terms, sums)
                      : add_terms<1>(codes, indices, terms, sums);
  }

  // Both sums at once: the loop over the values is what most of the time goes into.
  static void add_term(SumAndWeight& sum, const SumAndWeight& term) {
#if defined(__x86_64__)
    const __m128 both = _mm_add_ps(
        _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&sum))),
        _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&term))));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(&sum), _mm_castps_si128(both));
#else
    sum = {sum.sum + term.sum, sum.weight + term.weight};
#endif
  }

  template <int kBits>
  static void add_terms(const uint8_t* codes, const uint16_t* indices, const SumAndWeight* terms,
                        SumAndWeight* sums) {
    constexpr int kPerWord = 64 / kBits;
    for (int32_t first = 0; first < 64; first += kPerWord) {
      uint64_t word;
      std::memcpy(&word, codes + first * kBits / 8, sizeof word);
      for (int32_t j = first; j < first + kPerWord; ++j, word >>= kBits) {
        add_term(sums[indices[j]], terms[word & ((1u << kBits) - 1)]);
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
  std::unique_ptr<SumAndWeight[]> sums_;  // a chunk for each thread
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

cov_status cov_sparse_update(float* parameters, uint64_t length, const cov_merge_input* input,
                             const cov_tensor_info* tensors, int32_t tensor_count,
                             cov_sparse_format format, float rate, int32_t threads,
                             int32_t* skipped, int32_t* skipped_count) {
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
