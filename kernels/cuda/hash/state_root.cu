#include "hash/state_root.h"

#include <algorithm>
#include <cinttypes>
#include <vector>

#include "hash/pieces.h"

namespace covenant::cuda {
namespace {

constexpr uint64_t kPieceFloats = COV_STATE_PIECE_BYTES / sizeof(float);

}  // namespace

void state_root(Device& device, const float* parameters, uint64_t length,
                const cov_tensor_info* tensors, int32_t tensor_count,
                uint8_t root[COV_HASH_BYTES]) {
  std::vector<Piece> pieces;
  for (int32_t t = 0; t < tensor_count; ++t) {
    const cov_tensor_info& tensor = tensors[t];
    if (tensor.offset > length || tensor.length > length - tensor.offset) {
      raise(COV_INVALID_ARGUMENT, "tensor %s ends beyond the %" PRIu64 " parameters", tensor.name,
            length);
    }
    for (uint64_t at = 0; at < tensor.length; at += kPieceFloats) {
      pieces.push_back({parameters + tensor.offset + at,
                        std::min(kPieceFloats, tensor.length - at) * sizeof(float)});
    }
  }
  std::vector<uint8_t> items((pieces.size() + 1) * COV_HASH_BYTES);
  require(cov_tensor_table_root(tensors, tensor_count, items.data()));
  hash_pieces(device, pieces, items.data() + COV_HASH_BYTES);
  require(cov_merkle_root(items.data(), pieces.size() + 1, root));
}

}  // namespace covenant::cuda
