// Compressing works tensor by tensor: a pass over memory that forms the values, picks the largest
// and counts them by size (gather), then, when the last chunk of the tensor is counted, its levels,
// and a second look at the chosen values alone that writes the chunks (encode). Encoding one tensor
// goes along with the pass over the next: what it reads and writes at scattered places arrives
// meanwhile.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <memory>
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

// Consecutive chunks of one tensor.
struct Range {
  int32_t tensor = -1;
  uint64_t first = 0;
  uint64_t end = 0;
};

// Encoding waits for the levels of its tensor. All gathering of that tensor is done by tasks some
// way before this one, so that it hardly ever waits and always for a thread that is at work.
struct Task {
  Range gather;
  Range encode;
};
constexpr size_t kEncodeLag = 6;  // tasks

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
      const TensorSize size = tensor_size(tensors[t].length, format);
      chunks += own;
      kept += size.kept;
      body_at += size.bytes;
    }
    plan_tasks();
    scales_ = std::make_unique_for_overwrite<int32_t[]>(chunks);
    indices_ = std::make_unique_for_overwrite<uint16_t[]>(kept);
  }

  cov_status run(ThreadPool& pool) {
    pool.run(static_cast<int64_t>(tasks_.size()),
             [this](int64_t index) { run_task(tasks_[static_cast<size_t>(index)]); });
    const uint64_t fault = fault_.load();
    return fault == UINT64_MAX ? cov_ok() : explain(fault);
  }

 private:
  void plan_tasks() {
    std::vector<Range> ranges;
    std::vector<size_t> gathered;  // task that ends the gathering of the tensor of each range
    for (size_t t = 0; t < plans_.size(); ++t) {
      const size_t before = ranges.size();
      for (uint64_t first = 0; first < plans_[t].chunks; first += kChunksPerTask) {
        const uint64_t end = std::min(plans_[t].chunks, first + kChunksPerTask);
        ranges.push_back({static_cast<int32_t>(t), first, end});
      }
      progress_[t].to_gather = ranges.size() - before;
      gathered.resize(ranges.size(), ranges.size() - 1);
    }
    for (size_t gather = 0, encode = 0; encode < ranges.size(); ++gather) {
      Task task;
      if (gather < ranges.size()) task.gather = ranges[gather];
      if (gathered[encode] + kEncodeLag <= gather) task.encode = ranges[encode++];
      tasks_.push_back(task);
    }
  }

  void run_task(const Task& task) {
    const bool encodes = task.encode.tensor >= 0 && wait_for_levels(task.encode.tensor);
    uint32_t counts[kLevelBins] = {};
    uint32_t hint = 0;
    int32_t fault = 0;
    // A fault ends the work on later tensors; that on earlier ones may still find another.
    const bool gathers =
        task.gather.tensor >= 0 &&
        fault_.load(std::memory_order_relaxed) >> 32 >= static_cast<uint64_t>(task.gather.tensor);
    if (gathers) hint = progress_of(task.gather).hint.load(std::memory_order_relaxed);
    const uint64_t steps = std::max(encodes ? task.encode.end - task.encode.first : 0,
                                    gathers ? task.gather.end - task.gather.first : 0);
    for (uint64_t step = 0; step < steps; ++step) {
      const bool encodes_here = encodes && task.encode.first + step < task.encode.end;
      const TensorPlan& earlier = plans_[static_cast<size_t>(encodes ? task.encode.tensor : 0)];
      if (encodes_here) fetch(earlier, task.encode.first + step);
      if (gathers && fault == 0 && task.gather.first + step < task.gather.end) {
        fault = gather_chunk(plans_[static_cast<size_t>(task.gather.tensor)],
                             task.gather.first + step, &hint, counts);
      }
      if (encodes_here) encode_chunk(earlier, task.encode.first + step);
    }
    if (fault != 0) return report(task.gather.tensor, fault);
    if (gathers) finish_gathering(task.gather.tensor, hint, counts);
  }

  TensorProgress& progress_of(const Range& range) {
    return progress_[static_cast<size_t>(range.tensor)];
  }

  // False after a fault, when nothing need be encoded.
  bool wait_for_levels(int32_t tensor) {
    while (!progress_[static_cast<size_t>(tensor)].ready.load(std::memory_order_acquire)) {
      if (fault_.load(std::memory_order_relaxed) != UINT64_MAX) return false;
      std::this_thread::yield();
    }
    return true;
  }

  void finish_gathering(int32_t tensor, uint32_t hint, const uint32_t* counts) {
    TensorProgress& progress = progress_[static_cast<size_t>(tensor)];
    progress.hint.store(hint, std::memory_order_relaxed);
    if (format_.mode == 2) {
      const std::lock_guard<std::mutex> lock(histograms_);
      for (size_t bin = 0; bin < kLevelBins; ++bin) progress.histogram[bin] += counts[bin];
    }
    if (progress.to_gather.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      choose_levels(plans_[static_cast<size_t>(tensor)], progress.histogram);
      progress.ready.store(true, std::memory_order_release);
    }
  }

  // The pass over memory. Returns 0 or the code of what is wrong with the values.
  int32_t gather_chunk(const TensorPlan& plan, uint64_t chunk, uint32_t* hint, uint32_t* counts) {
    const int32_t n = chunk_length(plan.info->length, chunk);
    const int32_t kept = kept_count(n, format_.keep_per_chunk);
    const uint64_t at = plan.info->offset + chunk * COV_SPARSE_CHUNK;
    float* const a = source_.error_feedback + at;
    uint16_t indices[COV_SPARSE_CHUNK + kGatherIndexPadding];
    const uint32_t largest = path_.gather(source_.base + at, source_.current + at,
                                          source_.error_decay, a, n, kept, hint, indices);
    if (largest >= 0x7f800000) return COV_SPARSE_NON_FINITE;
    std::memcpy(indices_of(plan, chunk), indices, static_cast<size_t>(kept) * sizeof indices[0]);
    float values[COV_SPARSE_CHUNK];
    for (int32_t j = 0; j < kept; ++j) values[j] = a[indices[j]];
    int16_t positions[COV_SPARSE_CHUNK];
    const Measured measured = path_.measure(values, kept, positions);
    int32_t scale = kNoScale;
    if (measured.exponent > 0) scale = mean_scale(measured.exponent, measured.sum, kept);
    if (scale > kTopScaleMax) return COV_SPARSE_MAGNITUDE_TOO_LARGE;
    if (scale < -kTopScaleMax) scale = kNoScale;
    scales_[plan.first_chunk + chunk] = scale;
    if (scale != kNoScale && format_.mode == 2) {
      for (int32_t j = 0; j < kept; ++j) ++counts[level_bin(positions[j], scale)];
    }
    return 0;
  }

  void choose_levels(TensorPlan& plan, LevelHistogram& histogram) {
    const int32_t* const scales = scales_.get() + plan.first_chunk;
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
      const uint16_t* const indices = indices_of(plan, chunk);
      const float* const a = feedback_of(plan, chunk);
      for (int32_t j = 0; j < kept; ++j) {
        const uint32_t key = std::bit_cast<uint32_t>(a[indices[j]]) & 0x7fffffff;
        --histogram[level_bin(log32_position(key), scales[chunk])];
      }
    }
    plan.levels = best_levels(histogram);
    header[2] = static_cast<uint8_t>(kLevelBias - plan.levels.low);
    header[3] = static_cast<uint8_t>(plan.levels.high + kLevelBias);
  }

  // Writes the chunk and takes what is sent out of the error feedback.
  void encode_chunk(const TensorPlan& plan, uint64_t chunk) {
    const int32_t scale = scales_[plan.first_chunk + chunk];
    const int32_t code = scale_code(plan, scale);
    if (code == 0) return;
    const ChunkLayout layout(chunk_length(plan.info->length, chunk), format_);
    uint8_t* const bytes = body_ + plan.body_at + tensor_header_bytes(format_) +
                           chunk * static_cast<uint64_t>(full_.bytes());
    const uint16_t* const indices = indices_of(plan, chunk);
    float* const e = feedback_of(plan, chunk);
    float values[COV_SPARSE_CHUNK];
    for (int32_t j = 0; j < layout.kept; ++j) values[j] = e[indices[j]];
    write_chunk(path_, bytes, layout, format_.mode, code, scale, plan.levels, indices, values, e);
  }

  // Asks for the places of a chunk's error feedback that will be read and written.
  void fetch(const TensorPlan& plan, uint64_t chunk) const {
    const int32_t kept = kept_count(chunk_length(plan.info->length, chunk), format_.keep_per_chunk);
    const uint16_t* const indices = indices_of(plan, chunk);
    const float* const e = feedback_of(plan, chunk);
    for (int32_t j = 0; j < std::min(kept, 256); ++j) __builtin_prefetch(e + indices[j], 1);
  }

  uint16_t* indices_of(const TensorPlan& plan, uint64_t chunk) const {
    return indices_.get() + plan.first_kept + chunk * static_cast<uint64_t>(full_.kept);
  }

  float* feedback_of(const TensorPlan& plan, uint64_t chunk) const {
    return source_.error_feedback + plan.info->offset + chunk * COV_SPARSE_CHUNK;
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
  const SparsePath& path_ = sparse_path();
  std::vector<TensorPlan> plans_;
  std::vector<TensorProgress> progress_;
  std::vector<Task> tasks_;
  std::unique_ptr<int32_t[]> scales_;    // per chunk
  std::unique_ptr<uint16_t[]> indices_;  // of kept values
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
