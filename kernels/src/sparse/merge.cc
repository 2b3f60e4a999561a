// Merging the updates of several peers into one.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cinttypes>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "core/thread_pool.h"
#include "sparse/body.h"
#include "sparse/merged.h"
#include "sparse/norm.h"

namespace covenant::sparse {
namespace {

constexpr uint64_t kChunksPerTask = 64;

struct Task {
  int32_t tensor;
  uint64_t first;
  uint64_t end;
};

class Merger {
 public:
  Merger(const cov_merge_input& input, const cov_tensor_info* tensors, int32_t tensor_count,
         cov_sparse_format format)
      : input_(input), tensors_(tensors), format_(format), full_(COV_SPARSE_CHUNK, format) {
    for (int32_t r = 0; r < input.count; ++r) {
      if (input.weights[r] > 0) peers_.push_back(r);
    }
    for (const int32_t r : peers_) total_weight_ = total_weight_ + input.weights[r];
    uint64_t body_at = kHeaderBytes;
    for (int32_t t = 0; t < tensor_count; ++t) {
      body_at_.push_back(body_at);
      const uint64_t chunks = chunk_count(tensors[t].length);
      for (uint64_t first = 0; first < chunks; first += kChunksPerTask) {
        tasks_.push_back({t, first, std::min(chunks, first + kChunksPerTask)});
      }
      body_at += tensor_size(tensors[t].length, format).bytes;
    }
    factors_.assign(static_cast<size_t>(tensor_count) * peers_.size(), 1.0f);
    parts_.resize(tasks_.size());
  }

  // Serialises into `merged`.
  cov_status run(ThreadPool& pool, int32_t tensor_count, cov_bytes* merged) {
    if (input_.clip_to_median_norm) {
      pool.run(tensor_count,
               [this](int64_t t) { guard([&] { find_factors(static_cast<int32_t>(t)); }); });
    }
    pool.run(static_cast<int64_t>(tasks_.size()),
             [this](int64_t task) { guard([&] { merge_task(static_cast<size_t>(task)); }); });
    if (out_of_memory_) throw std::bad_alloc();
    uint64_t length = kMergedHeaderBytes;
    for (const auto& part : parts_) length += part.size();
    auto* const data = static_cast<uint8_t*>(std::malloc(length));
    if (data == nullptr) throw std::bad_alloc();
    std::memcpy(data, "CVM1", 4);
    data[4] = static_cast<uint8_t>(input_.rule);
    data[5] = input_.clip_to_median_norm ? 1 : 0;
    store_u16(data + 6, static_cast<uint16_t>(peers_.size()));
    store_u32(data + 8, static_cast<uint32_t>(tensor_count));
    uint8_t* at = data + kMergedHeaderBytes;
    for (const auto& part : parts_) {
      if (!part.empty()) std::memcpy(at, part.data(), part.size());
      at += part.size();
    }
    *merged = {data, length};
    return cov_ok();
  }

 private:
  // Tasks of the pool must not throw.
  template <typename Body>
  void guard(const Body& body) {
    try {
      body();
    } catch (const std::bad_alloc&) {
      out_of_memory_ = true;
    }
  }

  // The body was validated, so reading cannot fail.
  void read(int32_t peer, int32_t t, uint64_t c, Chunk& chunk) const {
    const uint8_t* const at = input_.bodies[peer] + body_at_[static_cast<size_t>(t)];
    TensorHeader header;
    read_tensor_header(at, format_, header);
    const ChunkLayout layout(chunk_length(tensors_[t].length, c), format_);
    read_chunk(at + chunk_at(c, full_, format_), layout, format_.mode, header.top_scale,
               header.levels, chunk);
  }

  float& factor(int32_t t, size_t peer) {
    return factors_[static_cast<size_t>(t) * peers_.size() + peer];
  }

  void find_factors(int32_t t) {
    std::vector<double> norms(peers_.size());
    MagnitudeCounts counts;
    for (size_t p = 0; p < peers_.size(); ++p) {
      count_magnitudes(input_.bodies[peers_[p]] + body_at_[static_cast<size_t>(t)],
                       tensors_[t].length, format_, counts);
      norms[p] = norm_of(counts);
    }
    std::vector<double> sorted = norms;
    std::sort(sorted.begin(), sorted.end());
    const double median = sorted[(sorted.size() - 1) / 2];
    for (size_t p = 0; p < peers_.size(); ++p) {
      if (norms[p] > median) factor(t, p) = static_cast<float>(median / norms[p]);
    }
  }

  void merge_task(size_t index) {
    const Task& task = tasks_[index];
    std::vector<uint8_t>& out = parts_[index];
    for (uint64_t c = task.first; c < task.end; ++c) merge_chunk(task.tensor, c, out);
  }

  void merge_chunk(int32_t t, uint64_t c, std::vector<uint8_t>& out) {
    const int32_t n = chunk_length(tensors_[t].length, c);
    float sum[COV_SPARSE_CHUNK];
    float weight[COV_SPARSE_CHUNK];
    bool sent[COV_SPARSE_CHUNK];
    std::fill_n(sum, n, 0.0f);
    std::fill_n(weight, n, 0.0f);
    std::fill_n(sent, n, false);
    Chunk chunk;
    for (size_t p = 0; p < peers_.size(); ++p) {
      read(peers_[p], t, c, chunk);
      const float w = input_.weights[peers_[p]];
      const float f = factor(t, p);
      for (int32_t j = 0; j < chunk.kept; ++j) {
        const uint16_t i = chunk.indices[j];
        const float clipped = f * chunk.values[j];
        const float weighted = w * clipped;
        sum[i] = sum[i] + weighted;
        weight[i] = weight[i] + w;
        sent[i] = true;
      }
    }
    uint16_t positions[COV_SPARSE_CHUNK];
    int32_t m = 0;
    for (int32_t i = 0; i < n; ++i) {
      if (sent[i]) positions[m++] = static_cast<uint16_t>(i);
    }
    size_t at = out.size();
    if (m == 0) {
      out.resize(at + 2);
      return;
    }
    const PositionLayout layout(n, m);
    out.resize(at + 2 + layout.bytes() + 4 * static_cast<size_t>(m));
    store_u16(&out[at], static_cast<uint16_t>(m));
    write_positions(&out[at + 2], layout, positions);
    at += 2 + layout.bytes();
    for (int32_t j = 0; j < m; ++j, at += 4) {
      const uint16_t i = positions[j];
      const float divisor = input_.rule == COV_MERGE_ALL ? total_weight_ : weight[i];
      store_u32(&out[at], std::bit_cast<uint32_t>(sum[i] / divisor));
    }
  }

  const cov_merge_input& input_;
  const cov_tensor_info* const tensors_;
  const cov_sparse_format format_;
  const ChunkLayout full_;
  std::vector<int32_t> peers_;  // those with weight, in order
  float total_weight_ = 0;
  std::vector<uint64_t> body_at_;  // of each tensor
  std::vector<Task> tasks_;
  std::vector<float> factors_;  // per tensor and peer
  std::vector<std::vector<uint8_t>> parts_;
  std::atomic<bool> out_of_memory_{false};
};

cov_status check_input(const cov_merge_input& input) {
  if (input.count < 1 || input.count > COV_SPARSE_PEERS_MAX) {
    return cov_error(COV_INVALID_ARGUMENT, "%d updates to merge; 1 to %d are possible", input.count,
                     COV_SPARSE_PEERS_MAX);
  }
  if (input.rule != COV_MERGE_CONTRIBUTORS && input.rule != COV_MERGE_ALL) {
    return cov_error(COV_INVALID_ARGUMENT, "merge rule %d is not known", input.rule);
  }
  bool any = false;
  for (int32_t r = 0; r < input.count; ++r) {
    if (!(input.weights[r] >= 0) || !std::isfinite(input.weights[r])) {
      return cov_error(COV_INVALID_ARGUMENT, "weight %d is not a finite number of at least 0", r);
    }
    any |= input.weights[r] > 0;
  }
  return any ? cov_ok() : cov_error(COV_INVALID_ARGUMENT, "all weights are zero");
}

}  // namespace
}  // namespace covenant::sparse

using namespace covenant::sparse;

cov_status cov_sparse_merge(const cov_merge_input* input, const cov_tensor_info* tensors,
                            int32_t tensor_count, cov_sparse_format format, int32_t threads,
                            cov_bytes* merged) {
  *merged = {nullptr, 0};
  if (cov_status status = check_input(*input); status.code != COV_OK) return status;
  for (int32_t r = 0; r < input->count; ++r) {
    const cov_status status = cov_sparse_check(input->bodies[r], input->body_bytes[r], tensors,
                                               tensor_count, format, nullptr);
    if (status.code != COV_OK) return refuse(status.code, "update %d: %s", r, status.message);
  }
  try {
    Merger merger(*input, tensors, tensor_count, format);
    covenant::ThreadPool pool(std::max(1, threads));
    return merger.run(pool, tensor_count, merged);
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory for the merged update");
  }
}
