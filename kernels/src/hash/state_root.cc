#include <algorithm>
#include <bit>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <new>
#include <vector>

#include "core/given.h"
#include "core/thread_pool.h"
#include "covenant/hash.h"
#include "covenant/model.h"
#include "hash/pieces.h"
#include "hash/sha256.h"

static_assert(std::endian::native == std::endian::little,
              "state is hashed as little-endian fp32 without conversion");

namespace covenant::hash {
namespace {

constexpr uint64_t kPieceFloats = COV_STATE_PIECE_BYTES / sizeof(float);

void hash_node(const uint8_t* left, const uint8_t* right, uint8_t* node) {
  Sha256 hash;
  const uint8_t prefix = 1;
  hash.update(&prefix, 1);
  hash.update(left, COV_HASH_BYTES);
  hash.update(right, COV_HASH_BYTES);
  hash.finish(node);
}

}  // namespace
}  // namespace covenant::hash

using namespace covenant::hash;

cov_status cov_merkle_root(const uint8_t* items, uint64_t count, uint8_t root[COV_HASH_BYTES]) {
  if (count == 0) {
    cov_sha256(nullptr, 0, root);
    return cov_ok();
  }
  try {
    std::vector<uint8_t> level(count * COV_HASH_BYTES);
    for (uint64_t i = 0; i < count; ++i) {
      Sha256 hash;
      const uint8_t prefix = 0;
      hash.update(&prefix, 1);
      hash.update(items + i * COV_HASH_BYTES, COV_HASH_BYTES);
      hash.finish(&level[i * COV_HASH_BYTES]);
    }
    while (count > 1) {
      for (uint64_t i = 0; i + 1 < count; i += 2) {
        const uint8_t* const left = &level[i * COV_HASH_BYTES];
        hash_node(left, left + COV_HASH_BYTES, &level[i / 2 * COV_HASH_BYTES]);
      }
      if (count % 2 == 1) {
        std::memmove(&level[count / 2 * COV_HASH_BYTES], &level[(count - 1) * COV_HASH_BYTES],
                     COV_HASH_BYTES);
      }
      count = (count + 1) / 2;
    }
    std::memcpy(root, level.data(), COV_HASH_BYTES);
    return cov_ok();
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory for %" PRIu64 " hashes", count);
  }
}

cov_status cov_tensor_table_root(const cov_tensor_info* tensors, int32_t tensor_count,
                                 uint8_t root[COV_HASH_BYTES]) {
  if (cov_status status = covenant::given("tensors", covenant::unless_empty(tensors, tensor_count));
      status.code != COV_OK) {
    return status;
  }
  Sha256 hash;
  for (int32_t t = 0; t < tensor_count; ++t) {
    const cov_tensor_info& tensor = tensors[t];
    if (tensor.rank != 1 && tensor.rank != 2) {
      return cov_error(COV_INVALID_ARGUMENT, "tensor %s has %d dimensions; 1 or 2 are possible",
                       tensor.name, tensor.rank);
    }
    char line[COV_TENSOR_NAME_BYTES + 48];
    const int length =
        tensor.rank == 1
            ? std::snprintf(line, sizeof line, "%s\t%" PRId64 "\n", tensor.name, tensor.dims[0])
            : std::snprintf(line, sizeof line, "%s\t%" PRId64 "x%" PRId64 "\n", tensor.name,
                            tensor.dims[0], tensor.dims[1]);
    hash.update(line, static_cast<size_t>(length));
  }
  hash.finish(root);
  return cov_ok();
}

cov_status cov_state_root(const float* parameters, uint64_t length, const cov_tensor_info* tensors,
                          int32_t tensor_count, int32_t threads, uint8_t root[COV_HASH_BYTES]) {
  if (cov_status status =
          covenant::given("parameters, tensors and root",
                          covenant::unless_empty(parameters, static_cast<int64_t>(length)),
                          covenant::unless_empty(tensors, tensor_count), root);
      status.code != COV_OK) {
    return status;
  }
  try {
    std::vector<Piece> pieces;
    for (int32_t t = 0; t < tensor_count; ++t) {
      const cov_tensor_info& tensor = tensors[t];
      if (tensor.offset > length || tensor.length > length - tensor.offset) {
        return cov_error(COV_INVALID_ARGUMENT, "tensor %s ends beyond the %" PRIu64 " parameters",
                         tensor.name, length);
      }
      for (uint64_t at = 0; at < tensor.length; at += kPieceFloats) {
        pieces.push_back({parameters + tensor.offset + at,
                          std::min(kPieceFloats, tensor.length - at) * sizeof(float)});
      }
    }
    std::vector<uint8_t> items((pieces.size() + 1) * COV_HASH_BYTES);
    if (cov_status status = cov_tensor_table_root(tensors, tensor_count, items.data());
        status.code != COV_OK) {
      return status;
    }
    covenant::ThreadPool pool(threads > 0 ? threads : cov_default_threads());
    hash_pieces(pool, pieces, items.data() + COV_HASH_BYTES);
    return cov_merkle_root(items.data(), pieces.size() + 1, root);
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory for the hashes of the state");
  }
}
