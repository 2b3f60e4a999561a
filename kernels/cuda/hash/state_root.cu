#include "hash/state_root.h"

#include <algorithm>
#include <cinttypes>
#include <vector>

#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

constexpr uint64_t kPieceFloats = COV_STATE_PIECE_BYTES / sizeof(float);
// SHA-256 of one piece is one long chain, so a piece is one thread. A block is one warp, which
// spreads the warps over all multiprocessors.
constexpr uint32_t kThreads = 32;

struct Piece {
  const float* at;
  uint64_t floats;
};

__constant__ uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

__device__ __forceinline__ uint32_t rotate_right(uint32_t x, uint32_t bits) {
  return __funnelshift_r(x, x, bits);
}

__device__ __forceinline__ uint32_t swap_bytes(uint32_t x) { return __byte_perm(x, 0, 0x0123); }

// Folds one block, given as 16 big-endian words, into the state. The schedule rolls in w.
__device__ __forceinline__ void fold(uint32_t state[8], uint32_t w[16]) {
  uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
  uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
#pragma unroll
  for (int t = 0; t < 64; ++t) {
    if (t >= 16) {
      const uint32_t x = w[(t + 1) & 15];
      const uint32_t y = w[(t + 14) & 15];
      const uint32_t s0 = rotate_right(x, 7) ^ rotate_right(x, 18) ^ (x >> 3);
      const uint32_t s1 = rotate_right(y, 17) ^ rotate_right(y, 19) ^ (y >> 10);
      w[t & 15] += s0 + w[(t + 9) & 15] + s1;
    }
    const uint32_t s1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
    const uint32_t choice = (e & f) ^ (~e & g);
    const uint32_t first = h + s1 + choice + kRound[t] + w[t & 15];
    const uint32_t s0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
    const uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
    h = g;
    g = f;
    f = e;
    e = d + first;
    d = c;
    c = b;
    b = a;
    a = first + s0 + majority;
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
  state[5] += f;
  state[6] += g;
  state[7] += h;
}

__device__ __forceinline__ void load_block(const float* at, uint32_t w[16]) {
  if (reinterpret_cast<uintptr_t>(at) % 16 == 0) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint4 four = __ldcs(reinterpret_cast<const uint4*>(at) + i);
      w[4 * i] = swap_bytes(four.x);
      w[4 * i + 1] = swap_bytes(four.y);
      w[4 * i + 2] = swap_bytes(four.z);
      w[4 * i + 3] = swap_bytes(four.w);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 16; ++i) w[i] = swap_bytes(__float_as_uint(__ldcs(at + i)));
  }
}

__global__ void hash_pieces(const Piece* pieces, uint32_t count, uint32_t* digests) {
  const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= count) return;
  const Piece piece = pieces[index];
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint32_t w[16];
  uint64_t at = 0;
  for (; at + 16 <= piece.floats; at += 16) {
    load_block(piece.at + at, w);
    fold(state, w);
  }
  // The rest, a one bit, zeros, and the length in bits: one block more, or two.
  const uint32_t rest = static_cast<uint32_t>(piece.floats - at);
#pragma unroll
  for (uint32_t i = 0; i < 16; ++i) {
    w[i] = i < rest ? swap_bytes(__float_as_uint(piece.at[at + i])) : i == rest ? 0x80000000u : 0u;
  }
  const uint64_t bits = piece.floats * 32;
  if (rest > 13) {
    fold(state, w);
#pragma unroll
    for (int i = 0; i < 14; ++i) w[i] = 0;
  }
  w[14] = static_cast<uint32_t>(bits >> 32);
  w[15] = static_cast<uint32_t>(bits);
  fold(state, w);
#pragma unroll
  for (int i = 0; i < 8; ++i) digests[8 * index + static_cast<uint32_t>(i)] = swap_bytes(state[i]);
}

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
      pieces.push_back(
          {parameters + tensor.offset + at, std::min(kPieceFloats, tensor.length - at)});
    }
  }
  std::vector<uint8_t> items((pieces.size() + 1) * COV_HASH_BYTES);
  require(cov_tensor_table_root(tensors, tensor_count, items.data()));
  if (!pieces.empty()) {
    const Arena::Scope scope(device.scratch());
    const auto count = static_cast<uint32_t>(pieces.size());
    Piece* const list = device.scratch().take<Piece>(count);
    uint32_t* const digests = device.scratch().take<uint32_t>(uint64_t{8} * count);
    device.upload(list, pieces.data(), count * sizeof(Piece));
    COVENANT_LAUNCH(hash_pieces, (count + kThreads - 1) / kThreads, kThreads, 0, device.stream(),
                    list, count, digests);
    device.download(items.data() + COV_HASH_BYTES, digests, uint64_t{COV_HASH_BYTES} * count);
    device.finish();
  }
  require(cov_merkle_root(items.data(), pieces.size() + 1, root));
}

}  // namespace covenant::cuda
