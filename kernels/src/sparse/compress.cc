// Compressing is one pass over memory: a chunk is formed, its largest values are picked, written to
// the body and taken out of the error feedback while it is in the first-level cache. Only what the
// levels of a tensor are chosen from, a sample of its chunks, goes before; and its scale codes,
// which are relative to the largest, are filled in last.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "core/given.h"
#include "core/thread_pool.h"
#include "covenant/model.h"
#include "sparse/body.h"
#include "sparse/chunk.h"
#include "sparse/gather.h"
#include "sparse/layout.h"
#include "sparse/levels.h"
#include "sparse/path.h"

namespace covenant::sparse {
namespace {

constexpr uint64_t kChunksPerTask = 16;

// Where the pieces of a tensor lie in the body and in the list of kept values, and what its tasks
// share.
struct TensorPlan {
  const cov_tensor_info* info = nullptr;
  uint64_t chunks = 0;
  uint64_t stride = 0;       // every stride-th chunk is in the sample; 0: none is
  uint64_t first_chunk = 0;  // among the chunks of all tensors
  uint64_t first_kept = 0;
  uint64_t body_at = 0;
  std::atomic<uint64_t> to_sample{0};  // tasks
  std::atomic<uint64_t> to_write{0};   // tasks
  std::atomic<bool> ready{false};      // levels are chosen
  std::atomic<uint32_t> hint{0};       // for the threshold of the next task
  LevelHistogram histogram{};
  Levels levels;

  bool sampled(uint64_t chunk) const { return stride > 0 && chunk % stride == 0; }
};

// A sampling task takes the sampled chunks [first, end), a writing task the chunks [first, end).
struct Task {
  bool sample;
  int32_t tensor;
  uint64_t first;
  uint64_t end;
};

class Compressor {
 public:
  Compressor(const cov_sparse_source& source, const cov_tensor_info* tensors, int32_t tensor_count,
             cov_sparse_format format, uint8_t* body)
      : source_(source),
        format_(format),
        full_(COV_SPARSE_CHUNK, format),
        body_(body),
        plans_(static_cast<size_t>(tensor_count)) {
    uint64_t chunks = 0;
    uint64_t kept = 0;
    uint64_t body_at = kHeaderBytes;
    for (int32_t t = 0; t < tensor_count; ++t) {
      TensorPlan& plan = plans_[static_cast<size_t>(t)];
      plan.info = &tensors[t];
      plan.chunks = chunk_count(tensors[t].length);
      plan.stride = format.mode == 2 ? sample_stride(plan.chunks) : 0;
      plan.first_chunk = chunks;
      plan.first_kept = kept;
      plan.body_at = body_at;
      plan.ready = plan.stride == 0;
      const TensorSize size = tensor_size(tensors[t].length, format);
      chunks += plan.chunks;
      kept += size.kept;
      body_at += size.bytes;
    }
    // One tensor is sampled ahead of the one that is written, so that writing hardly ever waits.
    for (int32_t t = 0; t <= tensor_count; ++t) {
      if (t < tensor_count) add_tasks(t, true);
      if (t > 0) add_tasks(t - 1, false);
    }
    scales_ = std::make_unique_for_overwrite<int32_t[]>(chunks);
    indices_ = std::make_unique_for_overwrite<uint16_t[]>(kept);
    values_ = std::make_unique_for_overwrite<float[]>(kept);
  }

  cov_status run(ThreadPool& pool) {
    pool.run(static_cast<int64_t>(tasks_.size()), [this](int64_t index) {
      const Task& task = tasks_[static_cast<size_t>(index)];
      if (pointless(task.tensor)) return;
      task.sample ? sample(task) : write(task);
    });
    const uint64_t fault = fault_.load();
    return fault == UINT64_MAX ? cov_ok() : explain(fault);
  }

 private:
  void add_tasks(int32_t tensor, bool sample) {
    TensorPlan& plan = plans_[static_cast<size_t>(tensor)];
    if (sample && plan.stride == 0) return;
    const uint64_t chunks = sample ? (plan.chunks - 1) / plan.stride + 1 : plan.chunks;
    for (uint64_t first = 0; first < chunks; first += kChunksPerTask) {
      tasks_.push_back({sample, tensor, first, std::min(chunks, first + kChunksPerTask)});
      ++(sample ? plan.to_sample : plan.to_write);
    }
  }

  // A fault ends the work on later tensors; that on earlier ones may still find another.
  bool pointless(int32_t tensor) const {
    return fault_.load(std::memory_order_relaxed) >> 32 < static_cast<uint64_t>(tensor);
  }

  void sample(const Task& task) {
    TensorPlan& plan = plans_[static_cast<size_t>(task.tensor)];
    uint32_t hint = plan.hint.load(std::memory_order_relaxed);
    for (uint64_t at = task.first; at < task.end; ++at)
      gather_chunk(task.tensor, at * plan.stride, &hint);
    plan.hint.store(hint, std::memory_order_relaxed);
    if (plan.to_sample.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      choose_levels(plan);
      plan.ready.store(true, std::memory_order_release);
    }
  }

  void write(const Task& task) {
    TensorPlan& plan = plans_[static_cast<size_t>(task.tensor)];
    // All sampling of the tensor comes before this in the order of the pool, so whoever is still at
    // it is a running thread.
    while (!plan.ready.load(std::memory_order_acquire)) {
      if (pointless(task.tensor)) return;
      std::this_thread::yield();
    }
    uint32_t hint = plan.hint.load(std::memory_order_relaxed);
    if (plan.sampled(task.first)) fetch(plan, task.first);
    for (uint64_t chunk = task.first; chunk < task.end; ++chunk) {
      if (chunk + 1 < task.end && plan.sampled(chunk + 1)) fetch(plan, chunk + 1);
      if (!plan.sampled(chunk)) gather_chunk(task.tensor, chunk, &hint);
      encode_chunk(plan, chunk);
    }
    plan.hint.store(hint, std::memory_order_relaxed);
    if (plan.to_write.fetch_sub(1, std::memory_order_acq_rel) == 1) finish(plan);
  }

  // Forms the values and picks the largest.
  void gather_chunk(int32_t tensor, uint64_t chunk, uint32_t* hint) {
    const TensorPlan& plan = plans_[static_cast<size_t>(tensor)];
    const int32_t n = chunk_length(plan.info->length, chunk);
    const int32_t kept = kept_count(n, format_.keep_per_chunk);
    const uint64_t at = plan.info->offset + chunk * COV_SPARSE_CHUNK;
    float* const a = source_.error_feedback + at;
    int32_t& scale = scales_[plan.first_chunk + chunk];
    scale = kNoScale;
    uint16_t indices[COV_SPARSE_CHUNK + kGatherIndexPadding];
    const uint32_t largest = path_.gather(source_.base + at, source_.current + at,
                                          source_.error_decay, a, n, kept, hint, indices);
    if (largest >= 0x7f800000) return report(tensor, COV_SPARSE_NON_FINITE);
    std::memcpy(indices_of(plan, chunk), indices, static_cast<size_t>(kept) * sizeof indices[0]);
    float* const values = values_of(plan, chunk);
    for (int32_t j = 0; j < kept; ++j) values[j] = a[indices[j]];
    const Magnitude magnitude = path_.magnitude(values, kept);
    if (magnitude.exponent == 0) return;
    const int32_t own = mean_scale(magnitude.exponent, magnitude.sum, kept);
    if (own > kTopScaleMax) return report(tensor, COV_SPARSE_MAGNITUDE_TOO_LARGE);
    if (own >= -kTopScaleMax) scale = own;
  }

  void choose_levels(TensorPlan& plan) {
    const int32_t* const scales = scales_.get() + plan.first_chunk;
    int32_t top = kNoScale;
    for (uint64_t chunk = 0; chunk < plan.chunks; chunk += plan.stride)
      top = std::max(top, scales[chunk]);
    if (top == kNoScale) return;
    for (uint64_t chunk = 0; chunk < plan.chunks; chunk += plan.stride) {
      if (scale_code(top, scales[chunk]) == 0) continue;
      const int32_t kept =
          kept_count(chunk_length(plan.info->length, chunk), format_.keep_per_chunk);
      const float* const values = values_of(plan, chunk);
      for (int32_t j = 0; j < kept; ++j) {
        const uint32_t key = std::bit_cast<uint32_t>(values[j]) & 0x7fffffff;
        ++plan.histogram[level_bin(key, scales[chunk])];
      }
    }
    plan.levels = best_levels(plan.histogram);
  }

  // Writes all of the chunk but its scale code and takes what is sent out of the error feedback.
  void encode_chunk(const TensorPlan& plan, uint64_t chunk) {
    const int32_t scale = scales_[plan.first_chunk + chunk];
    if (scale == kNoScale) return;
    const ChunkLayout layout(chunk_length(plan.info->length, chunk), format_);
    write_chunk(path_, bytes_of(plan, chunk), layout, format_.mode, 0, scale, plan.levels,
                indices_of(plan, chunk), values_of(plan, chunk), feedback_of(plan, chunk));
  }

  // Tensor header and scale codes; a chunk too far below the largest takes back what it wrote.
  void finish(const TensorPlan& plan) {
    const int32_t* const scales = scales_.get() + plan.first_chunk;
    const int32_t top = *std::max_element(scales, scales + plan.chunks);
    if (top == kNoScale) return;
    uint8_t* const header = body_ + plan.body_at;
    store_u16(header, static_cast<uint16_t>(top));
    if (format_.mode == 2) {
      header[2] = static_cast<uint8_t>(kLevelBias - plan.levels.low);
      header[3] = static_cast<uint8_t>(plan.levels.high + kLevelBias);
    }
    for (uint64_t chunk = 0; chunk < plan.chunks; ++chunk) {
      const int32_t code = scale_code(top, scales[chunk]);
      bytes_of(plan, chunk)[0] = static_cast<uint8_t>(code);
      if (code > 0 || scales[chunk] == kNoScale) continue;
      const ChunkLayout layout(chunk_length(plan.info->length, chunk), format_);
      std::memset(bytes_of(plan, chunk), 0, static_cast<size_t>(layout.bytes()));
      const uint16_t* const indices = indices_of(plan, chunk);
      const float* const values = values_of(plan, chunk);
      float* const e = feedback_of(plan, chunk);
      for (int32_t j = 0; j < layout.kept; ++j) e[indices[j]] = values[j];
    }
  }

  // Asks for the places of a sampled chunk's error feedback that will be written.
  void fetch(const TensorPlan& plan, uint64_t chunk) const {
    const int32_t kept = kept_count(chunk_length(plan.info->length, chunk), format_.keep_per_chunk);
    const uint16_t* const indices = indices_of(plan, chunk);
    const float* const e = feedback_of(plan, chunk);
    if (scales_[plan.first_chunk + chunk] == kNoScale) return;
    for (int32_t j = 0; j < std::min(kept, 256); ++j) __builtin_prefetch(e + indices[j], 1);
  }

  uint8_t* bytes_of(const TensorPlan& plan, uint64_t chunk) const {
    return body_ + plan.body_at + chunk_at(chunk, full_, format_);
  }

  uint16_t* indices_of(const TensorPlan& plan, uint64_t chunk) const {
    return indices_.get() + plan.first_kept + chunk * static_cast<uint64_t>(full_.kept);
  }

  float* values_of(const TensorPlan& plan, uint64_t chunk) const {
    return values_.get() + plan.first_kept + chunk * static_cast<uint64_t>(full_.kept);
  }

  float* feedback_of(const TensorPlan& plan, uint64_t chunk) const {
    return source_.error_feedback + plan.info->offset + chunk * COV_SPARSE_CHUNK;
  }

  // 0: the chunk sends nothing.
  static int32_t scale_code(int32_t top, int32_t scale) {
    if (scale == kNoScale) return 0;
    return std::max(0, kScaleCodeMax - (top - scale));
  }

  // Keeps the fault of the first tensor, so that the message does not depend on the threads.
  void report(int32_t tensor, int32_t code) {
    const uint64_t fault = static_cast<uint64_t>(tensor) << 32 | static_cast<uint64_t>(code);
    uint64_t seen = fault_.load();
    while (fault < seen && !fault_.compare_exchange_weak(seen, fault)) {
    }
  }

  cov_status explain(uint64_t fault) const {
    const char* const name = plans_[fault >> 32].info->name;
    if ((fault & UINT32_MAX) == COV_SPARSE_NON_FINITE) {
      return refuse(COV_SPARSE_NON_FINITE,
                    "tensor %s: base, current or error feedback holds NaN or infinity", name);
    }
    return refuse(COV_SPARSE_MAGNITUDE_TOO_LARGE,
                  "tensor %s: the update has values around 2^100 or above", name);
  }

  const cov_sparse_source& source_;
  const cov_sparse_format format_;
  const ChunkLayout full_;
  uint8_t* const body_;
  const SparsePath& path_ = sparse_path();
  std::vector<TensorPlan> plans_;
  std::vector<Task> tasks_;
  std::unique_ptr<int32_t[]> scales_;    // per chunk
  std::unique_ptr<uint16_t[]> indices_;  // of kept values
  std::unique_ptr<float[]> values_;      // kept, before anything is taken off
  std::atomic<uint64_t> fault_{UINT64_MAX};
};

cov_status check_source(const cov_sparse_source& source) {
  if (source.length > 0 && (!source.base || !source.current || !source.error_feedback)) {
    return cov_error(COV_INVALID_ARGUMENT, "base, current and errorFeedback are needed");
  }
  if (!(source.error_decay >= 0 && source.error_decay <= 1)) {
    return cov_error(COV_INVALID_ARGUMENT, "errorDecay is %g; it can be 0 to 1",
                     static_cast<double>(source.error_decay));
  }
  return cov_ok();
}

}  // namespace
}  // namespace covenant::sparse

using namespace covenant::sparse;

cov_status cov_sparse_compress(const cov_sparse_source* source, const cov_tensor_info* tensors,
                               int32_t tensor_count, cov_sparse_format format, int32_t threads,
                               uint8_t* body, uint64_t body_bytes) {
  if (cov_status status = covenant::given("source and body", source, body); status.code != COV_OK)
    return status;
  if (cov_status status = check_source(*source); status.code != COV_OK) return status;
  if (cov_status status = check_tensors(tensors, tensor_count, source->length);
      status.code != COV_OK)
    return status;
  uint64_t wanted = 0;
  if (cov_status status = cov_sparse_size(tensors, tensor_count, format, &wanted, nullptr);
      status.code != COV_OK) {
    return status;
  }
  if (body_bytes != wanted) {
    return cov_error(COV_INVALID_ARGUMENT, "the body takes %" PRIu64 " bytes, not %" PRIu64, wanted,
                     body_bytes);
  }
  std::memset(body, 0, body_bytes);
  std::memcpy(body, "CVS1", 4);
  body[4] = static_cast<uint8_t>(format.mode);
  body[5] = 1;
  store_u16(body + 6, static_cast<uint16_t>(format.keep_per_chunk));
  store_u32(body + 8, static_cast<uint32_t>(tensor_count));
  try {
    Compressor compressor(*source, tensors, tensor_count, format, body);
    covenant::ThreadPool pool(threads > 0 ? threads : cov_default_threads());
    return compressor.run(pool);
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory for the values to keep");
  }
}
