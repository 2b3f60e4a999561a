// Compressing works tensor by tensor: a pass over memory that forms the values, picks the largest
// and counts them by size (gather), then, when the last chunk of the tensor is counted, its levels,
// and a second look at the chosen values alone that writes the chunks (encode). The encoding of a
// tensor follows right behind the pass over the next one, so that a tensor that fits into a cache
// is still there.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "core/thread_pool.h"
#include "covenant/model.h"
#include "sparse/chunk.h"
#include "sparse/gather.h"
#include "sparse/layout.h"
#include "sparse/levels.h"
#include "sparse/path.h"

namespace covenant::sparse {
namespace {

// Chunks a task handles: 256 KiB of each of the three buffers.
constexpr uint64_t kChunksPerTask = 16;

// Where the pieces of a tensor lie in the body and in the list of kept values.
struct TensorPlan {
  const cov_tensor_info* info;
  uint64_t chunks;
  uint64_t first_chunk;  // among the chunks of all tensors
  uint64_t first_kept;
  uint64_t body_at;
  int32_t top_scale = kNoScale;
  Levels levels;
};

// What the tasks of one tensor share.
struct TensorProgress {
  std::atomic<uint64_t> to_gather{0};  // tasks
  std::atomic<uint32_t> hint{0};       // for the threshold of the next task
  std::atomic<bool> ready{false};      // levels are chosen
  LevelHistogram histogram{};
};

struct Task {
  bool encode;
  int32_t tensor;
  uint64_t first;  // chunk within the tensor
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
        progress_(static_cast<size_t>(tensor_count)) {
    uint64_t chunks = 0;
    uint64_t kept = 0;
    uint64_t body_at = kHeaderBytes;
    for (int32_t t = 0; t < tensor_count; ++t) {
      const uint64_t own = chunk_count(tensors[t].length);
      plans_.push_back({&tensors[t], own, chunks, kept, body_at, kNoScale, {}});
      add_tasks(t, false);
      if (t > 0) add_tasks(t - 1, true);
      const TensorSize size = tensor_size(tensors[t].length, format);
      chunks += own;
      kept += size.kept;
      body_at += size.bytes;
    }
    if (tensor_count > 0) add_tasks(tensor_count - 1, true);
    scales_.resize(chunks);
    indices_.resize(kept + kGatherIndexPadding);
    values_.resize(kept);
  }

  cov_status run(ThreadPool& pool) {
    pool.run(static_cast<int64_t>(tasks_.size()), [this](int64_t index) {
      const Task& task = tasks_[static_cast<size_t>(index)];
      // A fault ends the work on later tensors; that on earlier ones may still find another.
      if (fault_.load(std::memory_order_relaxed) >> 32 < static_cast<uint64_t>(task.tensor)) return;
      task.encode ? encode(task) : gather(task);
    });
    const uint64_t fault = fault_.load();
    return fault == UINT64_MAX ? cov_ok() : explain(fault);
  }

 private:
  void add_tasks(int32_t tensor, bool encode) {
    const uint64_t chunks = plans_[static_cast<size_t>(tensor)].chunks;
    for (uint64_t first = 0; first < chunks; first += kChunksPerTask) {
      tasks_.push_back({encode, tensor, first, std::min(chunks, first + kChunksPerTask)});
      if (!encode) ++progress_[static_cast<size_t>(tensor)].to_gather;
    }
  }

  // The pass over memory.
  void gather(const Task& task) {
    TensorProgress& progress = progress_[static_cast<size_t>(task.tensor)];
    const TensorPlan& plan = plans_[static_cast<size_t>(task.tensor)];
    uint32_t counts[kLevelBins] = {};
    uint32_t hint = progress.hint.load(std::memory_order_relaxed);
    int32_t fault = 0;
    for (uint64_t chunk = task.first; chunk < task.end && fault == 0; ++chunk)
      fault = gather_chunk(plan, chunk, &hint, counts);
    if (fault != 0) return report(task.tensor, fault);
    progress.hint.store(hint, std::memory_order_relaxed);
    if (format_.mode == 2) {
      const std::lock_guard<std::mutex> lock(histograms_);
      for (size_t bin = 0; bin < kLevelBins; ++bin) progress.histogram[bin] += counts[bin];
    }
    if (progress.to_gather.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      choose_levels(plans_[static_cast<size_t>(task.tensor)], progress.histogram);
      progress.ready.store(true, std::memory_order_release);
    }
  }

  // 0 or the code of what is wrong with the values. Indices are written with some padding behind
  // them, so a task's own scratch holds them first.
  int32_t gather_chunk(const TensorPlan& plan, uint64_t chunk, uint32_t* hint, uint32_t* counts) {
    const int32_t n = chunk_length(plan.info->length, chunk);
    const int32_t kept = kept_count(n, format_.keep_per_chunk);
    const uint64_t at = plan.info->offset + chunk * COV_SPARSE_CHUNK;
    float* const a = source_.error_feedback + at;
    uint16_t indices[COV_SPARSE_CHUNK + kGatherIndexPadding];
    const uint32_t largest = gather_(source_.base + at, source_.current + at, source_.error_decay,
                                     a, n, kept, hint, indices);
    if (largest >= 0x7f800000) return COV_SPARSE_NON_FINITE;
    const uint64_t first = plan.first_kept + chunk * static_cast<uint64_t>(full_.kept);
    std::memcpy(indices_.data() + first, indices, static_cast<size_t>(kept) * sizeof indices[0]);
    float* const values = values_.data() + first;
    uint32_t keys[COV_SPARSE_CHUNK];
    for (int32_t j = 0; j < kept; ++j) {
      values[j] = a[indices[j]];
      keys[j] = std::bit_cast<uint32_t>(values[j]) & 0x7fffffff;
    }
    int32_t scale = chunk_scale(keys, kept);
    if (scale > kTopScaleMax) return COV_SPARSE_MAGNITUDE_TOO_LARGE;
    if (scale < -kTopScaleMax) scale = kNoScale;
    scales_[plan.first_chunk + chunk] = scale;
    if (scale != kNoScale && format_.mode == 2) {
      for (int32_t j = 0; j < kept; ++j) ++counts[level_bin(keys[j], scale)];
    }
    return 0;
  }

  void choose_levels(TensorPlan& plan, LevelHistogram& histogram) {
    const int32_t* const scales = scales_.data() + plan.first_chunk;
    for (uint64_t chunk = 0; chunk < plan.chunks; ++chunk)
      plan.top_scale = std::max(plan.top_scale, scales[chunk]);
    uint8_t* const header = body_ + plan.body_at;
    if (plan.top_scale == kNoScale) return;
    store_u16(header, static_cast<uint16_t>(plan.top_scale));
    if (format_.mode != 2) return;
    // Chunks too far below the top to be sent were counted before the top was known.
    for (uint64_t chunk = 0; chunk < plan.chunks; ++chunk) {
      if (scales[chunk] == kNoScale || scale_code(plan, scales[chunk]) > 0) continue;
      const int32_t kept =
          kept_count(chunk_length(plan.info->length, chunk), format_.keep_per_chunk);
      const float* const values =
          values_.data() + plan.first_kept + chunk * static_cast<uint64_t>(full_.kept);
      for (int32_t j = 0; j < kept; ++j)
        --histogram[level_bin(std::bit_cast<uint32_t>(values[j]) & 0x7fffffff, scales[chunk])];
    }
    plan.levels = best_levels(histogram);
    header[2] = static_cast<uint8_t>(kLevelBias - plan.levels.low);
    header[3] = static_cast<uint8_t>(plan.levels.high + kLevelBias);
  }

  // Writes the chunks and takes what is sent out of the error feedback.
  void encode(const Task& task) {
    const TensorPlan& plan = plans_[static_cast<size_t>(task.tensor)];
    // All gathering tasks of the tensor come before this one in the order of the pool, so whoever
    // is still at it is a running thread.
    const TensorProgress& progress = progress_[static_cast<size_t>(task.tensor)];
    while (!progress.ready.load(std::memory_order_acquire)) {
      if (fault_.load(std::memory_order_relaxed) >> 32 <= static_cast<uint64_t>(task.tensor))
        return;
      std::this_thread::yield();
    }
    fetch(plan, task.first);
    for (uint64_t chunk = task.first; chunk < task.end; ++chunk) {
      if (chunk + 1 < task.end) fetch(plan, chunk + 1);
      const int32_t scale = scales_[plan.first_chunk + chunk];
      const int32_t code = scale_code(plan, scale);
      if (code == 0) continue;
      const ChunkLayout layout(chunk_length(plan.info->length, chunk), format_);
      const uint64_t first = plan.first_kept + chunk * static_cast<uint64_t>(full_.kept);
      uint8_t* const bytes = body_ + plan.body_at + tensor_header_bytes(format_) +
                             chunk * static_cast<uint64_t>(full_.bytes());
      write_chunk(bytes, layout, format_.mode, code, scale, plan.levels, indices_.data() + first,
                  values_.data() + first,
                  source_.error_feedback + plan.info->offset + chunk * COV_SPARSE_CHUNK);
    }
  }

  // Asks for the places of a chunk's error feedback that will be written.
  void fetch(const TensorPlan& plan, uint64_t chunk) const {
    const int32_t kept = kept_count(chunk_length(plan.info->length, chunk), format_.keep_per_chunk);
    const uint16_t* const indices =
        indices_.data() + plan.first_kept + chunk * static_cast<uint64_t>(full_.kept);
    const float* const e = source_.error_feedback + plan.info->offset + chunk * COV_SPARSE_CHUNK;
    for (int32_t j = 0; j < std::min(kept, 256); ++j) __builtin_prefetch(e + indices[j], 1);
  }

  static int32_t scale_code(const TensorPlan& plan, int32_t scale) {
    if (scale == kNoScale) return 0;
    return std::max(0, kScaleCodeMax - (plan.top_scale - scale));
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
  const GatherFunction gather_ = sparse_path().gather;
  std::vector<TensorPlan> plans_;
  std::vector<TensorProgress> progress_;
  std::vector<Task> tasks_;
  std::vector<int32_t> scales_;  // per chunk
  std::vector<uint16_t> indices_;
  std::vector<float> values_;
  std::mutex histograms_;
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
