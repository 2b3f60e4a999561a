#include "codec/delta.h"

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "core/given.h"
#include "core/thread_pool.h"
#include "covenant/model.h"
#include "hash/pieces.h"
#include "sparse/layout.h"

using covenant::ThreadPool;
using covenant::sparse::load_u32;
using covenant::sparse::refuse;
using covenant::sparse::store_u32;

namespace {

using covenant::codec::delta_chunk_weights;
using covenant::codec::delta_chunks;
using covenant::codec::delta_entry;
using covenant::codec::DeltaParts;
constexpr uint32_t kRaw = covenant::codec::kDeltaRaw;

uint64_t load_u64(const uint8_t* at) {
  return load_u32(at) | static_cast<uint64_t>(load_u32(at + 4)) << 32;
}

void store_u64(uint8_t* at, uint64_t value) {
  store_u32(at, static_cast<uint32_t>(value));
  store_u32(at + 4, static_cast<uint32_t>(value >> 32));
}

cov_status root_of(ThreadPool& pool, const uint16_t* weights, uint64_t count, uint8_t* root) {
  const uint64_t chunks = delta_chunks(count);
  std::vector<uint8_t> items(chunks * COV_HASH_BYTES);
  std::vector<covenant::hash::Piece> pieces;
  for (uint64_t c = 0; c < chunks; ++c)
    pieces.push_back({weights + c * COV_DELTA_CHUNK, delta_chunk_weights(count, c) * sizeof *weights});
  covenant::hash::hash_pieces(pool, pieces, items.data());
  return cov_merkle_root(items.data(), chunks, root);
}

int threads_or_default(int32_t threads) { return threads > 0 ? threads : cov_default_threads(); }

// What the code of a chunk that begins `behind` bytes after the table may be.
bool entry_valid(uint32_t entry, uint64_t weights) {
  const uint32_t bytes = entry & ~kRaw;
  return entry & kRaw ? bytes == 2 * weights : bytes < 2 * weights;
}

cov_status encode(const uint16_t* base, const uint16_t* next, uint64_t count, int threads,
                  cov_bytes* delta) {
  ThreadPool pool(threads);
  const uint64_t chunks = delta_chunks(count);
  DeltaParts parts;
  parts.codes.resize(chunks);
  parts.entries.resize(chunks);
  std::atomic<uint64_t> changed{0};
  std::atomic<bool> out_of_memory{false};
  pool.run(static_cast<int64_t>(chunks), [&](int64_t chunk) {
    const auto c = static_cast<uint64_t>(chunk);
    const uint64_t weights = delta_chunk_weights(count, c);
    const uint16_t* const from = base + c * COV_DELTA_CHUNK;
    const uint16_t* const to = next + c * COV_DELTA_CHUNK;
    if (std::memcmp(from, to, weights * sizeof *from) == 0) return;
    std::vector<uint8_t>& code = parts.codes[c];
    try {
      changed += covenant::codec::encode_delta_chunk(from, to, weights, code);
      parts.entries[c] = static_cast<uint32_t>(code.size());
      if (code.size() < 2 * weights) return;
      code.resize(2 * weights);
      std::memcpy(code.data(), to, 2 * weights);
      parts.entries[c] = static_cast<uint32_t>(2 * weights) | kRaw;
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
  });
  if (out_of_memory) throw std::bad_alloc();
  parts.changed = changed;
  if (cov_status status = root_of(pool, base, count, parts.base_root); status.code != COV_OK)
    return status;
  if (cov_status status = root_of(pool, next, count, parts.result_root); status.code != COV_OK)
    return status;
  covenant::codec::join_delta(count, parts, delta);
  return cov_ok();
}

cov_status apply(const uint16_t* base, const cov_delta_info& info, const uint8_t* delta,
                 const std::vector<uint64_t>& starts, int threads, uint16_t* next) {
  ThreadPool pool(threads);
  uint8_t root[COV_HASH_BYTES];
  if (cov_status status = root_of(pool, base, info.weight_count, root); status.code != COV_OK)
    return status;
  if (std::memcmp(root, info.base_root, sizeof root) != 0)
    return covenant::codec::refuse_delta_base();
  std::atomic<uint64_t> first_bad{UINT64_MAX};
  std::atomic<uint64_t> changed{0};
  std::atomic<bool> out_of_memory{false};
  pool.run(static_cast<int64_t>(info.chunk_count), [&](int64_t chunk) {
    const auto c = static_cast<uint64_t>(chunk);
    const uint32_t entry = delta_entry(delta, c);
    uint64_t own = 0;
    const cov_status status =
        cov_delta_apply_chunk(base, info.weight_count, c, delta + starts[c], entry & ~kRaw,
                              (entry & kRaw) != 0, next, &own);
    changed += own;
    if (status.code == COV_OUT_OF_MEMORY) out_of_memory = true;
    uint64_t seen = first_bad.load();
    while (status.code != COV_OK && c < seen && !first_bad.compare_exchange_weak(seen, c)) {
    }
  });
  if (out_of_memory) throw std::bad_alloc();
  if (first_bad != UINT64_MAX)
    return covenant::codec::refuse_delta_chunk(first_bad.load());
  if (cov_status status = root_of(pool, next, info.weight_count, root); status.code != COV_OK)
    return status;
  if (std::memcmp(root, info.result_root, sizeof root) != 0 || changed != info.changed_count)
    return covenant::codec::refuse_delta_result();
  return cov_ok();
}

}  // namespace

namespace covenant::codec {

cov_status check_delta_weights(const void* weights, uint64_t count) {
  if (count > COV_DELTA_WEIGHTS_MAX)
    return cov_error(COV_INVALID_ARGUMENT, "%" PRIu64 " weights; at most 2^40 are possible", count);
  return count > 0 ? given("weights", weights) : cov_ok();
}

void join_delta(uint64_t count, const DeltaParts& parts, cov_bytes* delta) {
  uint64_t length = COV_DELTA_HEADER_BYTES + 4 * parts.entries.size();
  for (const auto& code : parts.codes) length += code.size();
  auto* const bytes = static_cast<uint8_t*>(std::malloc(length));
  if (bytes == nullptr) throw std::bad_alloc();
  *delta = {bytes, length};
  std::memcpy(bytes, "CVD1", 4);
  store_u64(bytes + 4, count);
  store_u64(bytes + 12, parts.changed);
  std::memcpy(bytes + 20, parts.base_root, COV_HASH_BYTES);
  std::memcpy(bytes + 52, parts.result_root, COV_HASH_BYTES);
  uint8_t* at = bytes + COV_DELTA_HEADER_BYTES;
  for (const uint32_t entry : parts.entries) {
    store_u32(at, entry);
    at += 4;
  }
  for (const auto& code : parts.codes) {
    if (!code.empty()) std::memcpy(at, code.data(), code.size());
    at += code.size();
  }
}

uint32_t delta_entry(const uint8_t* delta, uint64_t chunk) {
  return load_u32(delta + COV_DELTA_HEADER_BYTES + 4 * chunk);
}

cov_status check_delta(uint64_t count, const uint8_t* delta, uint64_t delta_bytes,
                       cov_delta_info* info, std::vector<uint64_t>* starts) {
  if (cov_status status = cov_delta_read(delta, delta_bytes, info); status.code != COV_OK)
    return status;
  if (info->weight_count != count) {
    return refuse(COV_DELTA_WRONG_COUNT, "a delta of %" PRIu64 " weights; there are %" PRIu64,
                  info->weight_count, count);
  }
  uint64_t at = COV_DELTA_HEADER_BYTES + 4 * info->chunk_count;
  if (delta_bytes < at)
    return refuse(COV_DELTA_WRONG_SIZE, "the table of chunks is not all there");
  for (uint64_t c = 0; c < info->chunk_count; ++c) {
    starts->push_back(at);
    at += delta_entry(delta, c) & ~kRaw;
  }
  if (at != delta_bytes) {
    return refuse(COV_DELTA_WRONG_SIZE, "%" PRIu64 " bytes; the table of chunks says %" PRIu64,
                  delta_bytes, at);
  }
  return cov_ok();
}

cov_status refuse_delta_base() {
  return refuse(COV_DELTA_WRONG_BASE, "the delta was made from other weights");
}

cov_status refuse_delta_chunk(uint64_t chunk) {
  return refuse(COV_DELTA_MALFORMED, "chunk %" PRIu64 " has no valid code", chunk);
}

cov_status refuse_delta_result() {
  return refuse(COV_DELTA_WRONG_RESULT, "the delta leads to other weights than it names");
}

}  // namespace covenant::codec

cov_status cov_delta_root(const uint16_t* weights, uint64_t count, int32_t threads,
                          uint8_t root[COV_HASH_BYTES]) {
  if (cov_status status = covenant::codec::check_delta_weights(weights, count);
      status.code != COV_OK) {
    return status;
  }
  try {
    ThreadPool pool(threads_or_default(threads));
    return root_of(pool, weights, count, root);
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory for the hashes of the weights");
  }
}

cov_status cov_delta_encode(const uint16_t* base, const uint16_t* next, uint64_t count,
                            int32_t threads, cov_bytes* delta) {
  if (cov_status status = covenant::given("delta", delta); status.code != COV_OK)
    return status;
  *delta = {nullptr, 0};
  if (cov_status status = covenant::codec::check_delta_weights(base, count); status.code != COV_OK)
    return status;
  if (cov_status status = covenant::codec::check_delta_weights(next, count); status.code != COV_OK)
    return status;
  try {
    const cov_status status = encode(base, next, count, threads_or_default(threads), delta);
    if (status.code != COV_OK) cov_bytes_free(delta);
    return status;
  } catch (const std::bad_alloc&) {
    cov_bytes_free(delta);
    return cov_error(COV_OUT_OF_MEMORY, "no memory for the delta");
  }
}

cov_status cov_delta_read(const uint8_t* delta, uint64_t delta_bytes, cov_delta_info* info) {
  if (cov_status status = covenant::given("info", info); status.code != COV_OK) return status;
  *info = {};
  if (delta_bytes < COV_DELTA_HEADER_BYTES)
    return refuse(COV_DELTA_WRONG_SIZE, "%" PRIu64 " bytes are less than a header", delta_bytes);
  if (cov_status status = covenant::given("delta", delta); status.code != COV_OK) return status;
  if (std::memcmp(delta, "CVD1", 4) != 0)
    return refuse(COV_DELTA_WRONG_MAGIC, "this is not covenant.delta.v1");
  info->weight_count = load_u64(delta + 4);
  info->changed_count = load_u64(delta + 12);
  if (info->weight_count > COV_DELTA_WEIGHTS_MAX || info->changed_count > info->weight_count) {
    return refuse(COV_DELTA_WRONG_COUNT, "%" PRIu64 " of %" PRIu64 " weights change",
                  info->changed_count, info->weight_count);
  }
  info->chunk_count = delta_chunks(info->weight_count);
  std::memcpy(info->base_root, delta + 20, COV_HASH_BYTES);
  std::memcpy(info->result_root, delta + 52, COV_HASH_BYTES);
  const uint64_t there =
      std::min(info->chunk_count, (delta_bytes - COV_DELTA_HEADER_BYTES) / 4);
  for (uint64_t c = 0; c < there; ++c) {
    if (!entry_valid(load_u32(delta + COV_DELTA_HEADER_BYTES + 4 * c),
                     delta_chunk_weights(info->weight_count, c)))
      return refuse(COV_DELTA_WRONG_SIZE, "chunk %" PRIu64 " is longer than its weights", c);
  }
  return cov_ok();
}

cov_status cov_delta_apply(const uint16_t* base, uint64_t count, const uint8_t* delta,
                           uint64_t delta_bytes, int32_t threads, uint16_t* next) {
  if (cov_status status = covenant::codec::check_delta_weights(base, count); status.code != COV_OK)
    return status;
  if (cov_status status = covenant::codec::check_delta_weights(next, count); status.code != COV_OK)
    return status;
  try {
    cov_delta_info info;
    std::vector<uint64_t> starts;
    const cov_status status =
        covenant::codec::check_delta(count, delta, delta_bytes, &info, &starts);
    if (status.code != COV_OK) return status;
    return apply(base, info, delta, starts, threads_or_default(threads), next);
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory to apply the delta");
  }
}

cov_status cov_delta_apply_chunk(const uint16_t* base, uint64_t count, uint64_t chunk,
                                 const uint8_t* code, uint64_t code_bytes, int32_t raw,
                                 uint16_t* next, uint64_t* changed) {
  if (cov_status status = covenant::given("base, next and changed", base, next, changed);
      status.code != COV_OK) {
    return status;
  }
  *changed = 0;
  if (chunk >= delta_chunks(count))
    return cov_error(COV_INVALID_ARGUMENT, "chunk %" PRIu64 " is beyond the weights", chunk);
  const uint64_t weights = delta_chunk_weights(count, chunk);
  const uint16_t* const from = base + chunk * COV_DELTA_CHUNK;
  uint16_t* const to = next + chunk * COV_DELTA_CHUNK;
  if (code_bytes == 0 && raw == 0) {
    if (from != to) std::memcpy(to, from, weights * sizeof *to);
    return cov_ok();
  }
  if (raw != 0) {
    if (code_bytes != 2 * weights)
      return refuse(COV_DELTA_MALFORMED, "chunk %" PRIu64 " is not as long as its weights", chunk);
    for (uint64_t i = 0; i < weights; ++i) {
      const auto weight = static_cast<uint16_t>(code[2 * i] | code[2 * i + 1] << 8);
      *changed += weight != from[i];
      to[i] = weight;
    }
    return cov_ok();
  }
  try {
    if (!covenant::codec::decode_delta_chunk(code, code_bytes, from, weights, to, changed))
      return covenant::codec::refuse_delta_chunk(chunk);
    return cov_ok();
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory to decode a chunk");
  }
}

const char* cov_delta_code_name(int32_t code) {
  switch (code) {
    case COV_DELTA_WRONG_MAGIC:
      return "DELTA_WRONG_MAGIC";
    case COV_DELTA_WRONG_COUNT:
      return "DELTA_WRONG_COUNT";
    case COV_DELTA_WRONG_SIZE:
      return "DELTA_WRONG_SIZE";
    case COV_DELTA_WRONG_BASE:
      return "DELTA_WRONG_BASE";
    case COV_DELTA_MALFORMED:
      return "DELTA_MALFORMED";
    case COV_DELTA_WRONG_RESULT:
      return "DELTA_WRONG_RESULT";
    default:
      return cov_sparse_code_name(code);
  }
}
