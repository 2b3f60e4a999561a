#include "hash/pieces.h"

#include "hash/round_constants.h"
#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

// SHA-256 of one piece is one long chain, so a piece is one thread. A block is one warp, which
// spreads the warps over all multiprocessors.
constexpr uint32_t kThreads = 32;

__constant__ uint32_t kRound[64] = {COVENANT_SHA256_ROUND_CONSTANTS};

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

// The two bytes at `at` as the upper half of a big-endian word.
__device__ __forceinline__ uint32_t upper_half(const uint16_t* at) {
  return swap_bytes(*at);
}

__device__ __forceinline__ void load_block(const uint16_t* at, uint32_t w[16]) {
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
    for (int i = 0; i < 16; ++i)
      w[i] = upper_half(at + 2 * i) | upper_half(at + 2 * i + 1) >> 16;
  }
}

__global__ void hash_kernel(const Piece* pieces, uint32_t count, uint32_t* digests) {
  const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= count) return;
  const auto* const data = static_cast<const uint16_t*>(pieces[index].at);
  const uint64_t halves = pieces[index].bytes / 2;
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint32_t w[16];
  uint64_t at = 0;
  for (; at + 32 <= halves; at += 32) {
    load_block(data + at, w);
    fold(state, w);
  }
  // The rest, a one bit, zeros, and the length in bits: one block more, or two.
  const auto rest = static_cast<uint32_t>(halves - at);
  const auto half = [&](uint32_t i) {
    return i < rest ? upper_half(data + at + i) : i == rest ? 0x80000000u : 0u;
  };
#pragma unroll
  for (uint32_t i = 0; i < 16; ++i) w[i] = half(2 * i) | half(2 * i + 1) >> 16;
  const uint64_t bits = halves * 16;
  if (rest > 27) {
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

void hash_pieces(Device& device, const std::vector<Piece>& pieces, uint8_t* digests) {
  if (pieces.empty()) return;
  const Arena::Scope scope(device.scratch());
  const auto count = static_cast<uint32_t>(pieces.size());
  auto* const list = device.scratch().take<Piece>(count);
  auto* const found = device.scratch().take<uint32_t>(uint64_t{8} * count);
  device.upload(list, pieces.data(), count * sizeof(Piece));
  COVENANT_LAUNCH(hash_kernel, (count + kThreads - 1) / kThreads, kThreads, 0, device.stream(),
                  list, count, found);
  device.download(digests, found, uint64_t{COV_HASH_BYTES} * count);
  device.finish();
}

}  // namespace covenant::cuda
