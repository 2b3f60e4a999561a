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

#include "core/given.h"
#include "core/thread_pool.h"
#include "covenant/model.h"
#include "sparse/merged.h"
#include "sparse/peers.h"

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
  Merger(const cov_merge_input& input, const Peers& peers, const cov_tensor_info* tensors,
         int32_t tensor_count, cov_sparse_format format)
      : input_(input),
        peers_(peers),
        tensors_(tensors),
        format_(format),
        full_(COV_SPARSE_CHUNK, format) {
    for (int32_t t = 0; t < tensor_count; ++t) {
      const uint64_t chunks = chunk_count(tensors[t].length);
      for (uint64_t first = 0; first < chunks; first += kChunksPerTask) {
        tasks_.push_back({t, first, std::min(chunks, first + kChunksPerTask)});
      }
    }
    parts_.resize(tasks_.size());
  }

  // Serialises into `merged`.
  cov_status run(ThreadPool& pool, int32_t tensor_count, cov_bytes* merged) {
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
    store_u16(data + 6, static_cast<uint16_t>(peers_.count()));
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
  void read(size_t peer, int32_t t, uint64_t c, Chunk& chunk) const {
    const uint8_t* const at = peers_.tensor_bytes(t, peer);
    TensorHeader header;
    read_tensor_header(at, format_, header);
    const ChunkLayout layout(chunk_length(tensors_[t].length, c), format_);
    read_chunk(at + chunk_at(c, full_, format_), layout, format_.mode, header.top_scale,
               header.levels, chunk);
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
    for (size_t p = 0; p < peers_.count(); ++p) {
      read(p, t, c, chunk);
      const float w = peers_.weight(p);
      const float f = peers_.factor(t, p);
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
      const float divisor = input_.rule == COV_MERGE_ALL ? peers_.total_weight() : weight[i];
      store_u32(&out[at], std::bit_cast<uint32_t>(sum[i] / divisor));
    }
  }

  const cov_merge_input& input_;
  const Peers& peers_;
  const cov_tensor_info* const tensors_;
  const cov_sparse_format format_;
  const ChunkLayout full_;
  std::vector<Task> tasks_;
  std::vector<std::vector<uint8_t>> parts_;
  std::atomic<bool> out_of_memory_{false};
};

}  // namespace
}  // namespace covenant::sparse

using namespace covenant::sparse;

cov_status cov_sparse_merge(const cov_merge_input* input, const cov_tensor_info* tensors,
                            int32_t tensor_count, cov_sparse_format format, int32_t threads,
                            cov_bytes* merged) {
  if (cov_status status = covenant::given("input and merged", input, merged); status.code != COV_OK)
    return status;
  *merged = {nullptr, 0};
  if (cov_status status = check_merge_input(*input); status.code != COV_OK) return status;
  if (cov_status status = check_format(format); status.code != COV_OK) return status;
  if (cov_status status = check_tensors(tensors, tensor_count, UINT64_MAX); status.code != COV_OK)
    return status;
  try {
    covenant::ThreadPool pool(threads > 0 ? threads : cov_default_threads());
    Peers peers(*input, tensors, tensor_count, format);
    if (cov_status status = peers.check(pool); status.code != COV_OK) return status;
    peers.find_factors(pool);
    return Merger(*input, peers, tensors, tensor_count, format).run(pool, tensor_count, merged);
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory for the merged update");
  }
}
