#include "sparse/packed.h"

#include <atomic>
#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/given.h"
#include "core/thread_pool.h"
#include "covenant/model.h"
#include "sparse/body.h"

using covenant::ThreadPool;
using namespace covenant::sparse;

namespace {

// Starts of the blocks, and how many chunks there are.
struct Blocks {
  std::vector<BlockStart> starts;
  uint64_t chunks = 0;

  explicit Blocks(const PackedTable& table) {
    uint64_t at = kHeaderBytes;
    for (int32_t t = 0; t < table.tensor_count; ++t) {
      const uint64_t own = chunk_count(table.tensors[t].length);
      while (starts.size() * COV_PACKED_BLOCK < chunks + own)
        starts.push_back({t, starts.size() * COV_PACKED_BLOCK - chunks, at});
      chunks += own;
      at += tensor_size(table.tensors[t].length, table.format).bytes;
    }
  }

  uint64_t chunks_in(uint64_t block) const {
    return std::min<uint64_t>(COV_PACKED_BLOCK, chunks - block * COV_PACKED_BLOCK);
  }
};

cov_status pack(const uint8_t* body, const PackedTable& table, int threads, cov_bytes* packed) {
  const Blocks blocks(table);
  const uint64_t count = blocks.starts.size();
  std::vector<std::vector<uint8_t>> codes(count);
  std::atomic<bool> out_of_memory{false};
  ThreadPool pool(threads);
  pool.run(static_cast<int64_t>(count), [&](int64_t block) {
    const auto b = static_cast<uint64_t>(block);
    try {
      pack_block(body, table, blocks.starts[b], blocks.chunks_in(b), codes[b]);
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
  });
  if (out_of_memory) throw std::bad_alloc();
  uint64_t length = kHeaderBytes + 4 * count;
  for (const auto& code : codes) length += code.size();
  auto* at = static_cast<uint8_t*>(std::malloc(length));
  if (at == nullptr) throw std::bad_alloc();
  *packed = {at, length};
  std::memcpy(at, body, kHeaderBytes);
  std::memcpy(at, "CVP1", 4);
  at += kHeaderBytes;
  for (const auto& code : codes) {
    store_u32(at, static_cast<uint32_t>(code.size()));
    at += 4;
  }
  for (const auto& code : codes) {
    std::memcpy(at, code.data(), code.size());
    at += code.size();
  }
  return cov_ok();
}

// Starts of the codes in `packed`, which must end where they do.
cov_status code_starts(const uint8_t* packed, uint64_t packed_bytes, uint64_t blocks,
                       std::vector<uint64_t>& starts) {
  uint64_t at = kHeaderBytes + 4 * blocks;
  if (packed_bytes < at) {
    return refuse(COV_SPARSE_WRONG_SIZE, "%" PRIu64 " bytes; the table of %" PRIu64
                  " blocks is not all there", packed_bytes, blocks);
  }
  for (uint64_t b = 0; b < blocks; ++b) {
    starts.push_back(at);
    at += load_u32(packed + kHeaderBytes + 4 * b);
  }
  starts.push_back(at);
  if (at != packed_bytes) {
    return refuse(COV_SPARSE_WRONG_SIZE, "%" PRIu64 " bytes; the table of blocks says %" PRIu64,
                  packed_bytes, at);
  }
  return cov_ok();
}

cov_status unpack(const uint8_t* packed, uint64_t packed_bytes, const PackedTable& table,
                  int threads, uint8_t* body, uint64_t body_bytes) {
  const Blocks blocks(table);
  std::vector<uint64_t> starts;
  if (cov_status status = code_starts(packed, packed_bytes, blocks.starts.size(), starts);
      status.code != COV_OK) {
    return status;
  }
  std::memset(body, 0, body_bytes);
  std::memcpy(body, packed, kHeaderBytes);
  std::memcpy(body, "CVS1", 4);
  std::atomic<uint64_t> first_bad{UINT64_MAX};
  std::atomic<bool> out_of_memory{false};
  ThreadPool pool(threads);
  pool.run(static_cast<int64_t>(blocks.starts.size()), [&](int64_t block) {
    const auto b = static_cast<uint64_t>(block);
    try {
      if (unpack_block(packed + starts[b], starts[b + 1] - starts[b], table, blocks.starts[b],
                       blocks.chunks_in(b), body)) {
        return;
      }
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
    uint64_t seen = first_bad.load();
    while (b < seen && !first_bad.compare_exchange_weak(seen, b)) {
    }
  });
  if (out_of_memory) throw std::bad_alloc();
  if (first_bad != UINT64_MAX)
    return refuse(COV_SPARSE_NOT_CANONICAL, "block %" PRIu64 " has no valid code", first_bad.load());
  return cov_sparse_check(body, body_bytes, table.tensors, table.tensor_count, table.format,
                          nullptr);
}

int threads_or_default(int32_t threads) { return threads > 0 ? threads : cov_default_threads(); }

}  // namespace

cov_status cov_sparse_pack(const uint8_t* body, uint64_t body_bytes, const cov_tensor_info* tensors,
                           int32_t tensor_count, cov_sparse_format format, int32_t threads,
                           cov_bytes* packed) {
  if (cov_status status = covenant::given("packed", packed); status.code != COV_OK)
    return status;
  *packed = {nullptr, 0};
  if (cov_status status =
          cov_sparse_check(body, body_bytes, tensors, tensor_count, format, nullptr);
      status.code != COV_OK) {
    return status;
  }
  try {
    return pack(body, {tensors, tensor_count, format}, threads_or_default(threads), packed);
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory for the packed update");
  }
}

cov_status cov_sparse_unpack(const uint8_t* packed, uint64_t packed_bytes,
                             const cov_tensor_info* tensors, int32_t tensor_count,
                             cov_sparse_format format, int32_t threads, uint8_t* body,
                             uint64_t body_bytes) {
  uint64_t wanted = 0;
  if (cov_status status = cov_sparse_size(tensors, tensor_count, format, &wanted, nullptr);
      status.code != COV_OK) {
    return status;
  }
  if (body_bytes != wanted) {
    return cov_error(COV_INVALID_ARGUMENT, "room for %" PRIu64 " bytes; the body has %" PRIu64,
                     body_bytes, wanted);
  }
  if (cov_status status = covenant::given("body", body); status.code != COV_OK)
    return status;
  if (cov_status status = check_header(packed, packed_bytes, "CVP1", tensor_count, format);
      status.code != COV_OK) {
    return status;
  }
  try {
    return unpack(packed, packed_bytes, {tensors, tensor_count, format},
                  threads_or_default(threads), body, body_bytes);
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory to unpack the update");
  }
}
