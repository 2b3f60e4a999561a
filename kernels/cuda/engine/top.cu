// A block for each row. The count-th largest logit is found digit by digit from counts of each digit's values
// (radix select, four passes of 8 bits), what is above it is collected, and of its equals the first ones; then all
// are ranked by comparing each with each.
#include "engine/top.cuh"

#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kDigits = 256;
static_assert(kTopMax <= kThreads);

struct Shared {
  uint32_t counts[kDigits];
  uint32_t prefix, wanted;  // of the digits known so far; how many of those that begin so
  uint32_t found;
  uint32_t keys[kTopMax];
  int32_t tokens[kTopMax];
};

// Larger for larger numbers, the same for both zeros.
__device__ __forceinline__ uint32_t key_of(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

// The key that `wanted` of a row's keys reach or exceed, of which `shared.wanted` equal it.
__device__ uint32_t select(const float* z, int64_t vocab, uint32_t wanted, Shared& shared) {
  if (threadIdx.x == 0) {
    shared.prefix = 0;
    shared.wanted = wanted;
  }
  uint32_t known = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    shared.counts[threadIdx.x] = 0;
    __syncthreads();
    const uint32_t prefix = shared.prefix;
    for (int64_t i = threadIdx.x; i < vocab; i += kThreads) {
      const uint32_t key = key_of(z[i]);
      if ((key & known) == prefix) atomicAdd(&shared.counts[key >> shift & 0xff], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      uint32_t left = shared.wanted, digit = kDigits - 1;
      for (; digit > 0 && shared.counts[digit] < left; --digit) left -= shared.counts[digit];
      shared.wanted = left;
      shared.prefix = prefix | digit << shift;
    }
    __syncthreads();
    known |= 0xffu << shift;
  }
  return shared.prefix;
}

__device__ __forceinline__ void collect(Shared& shared, uint32_t key, int64_t token) {
  const uint32_t at = atomicAdd(&shared.found, 1u);
  shared.keys[at] = key;
  shared.tokens[at] = static_cast<int32_t>(token);
}

__global__ void __launch_bounds__(kThreads) top_kernel(TopRows top, const float* logits) {
  __shared__ Shared shared;
  const int64_t row = blockIdx.x;
  const float* const z = logits + row * top.vocab;
  const auto count = static_cast<uint32_t>(top.count);
  const uint32_t least = select(z, top.vocab, count, shared);
  uint32_t equals = shared.wanted;  // that are taken
  if (threadIdx.x == 0) shared.found = 0;
  __syncthreads();
  for (int64_t first = 0; first < top.vocab; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    const uint32_t key = i < top.vocab ? key_of(z[i]) : 0;
    if (key > least) collect(shared, key, i);
    if (equals == 0) continue;
    // In order of their ids, which one thread after the other has.
    const bool equal = i < top.vocab && key == least;
    shared.counts[threadIdx.x] = equal ? 1u : 0u;
    const auto all = static_cast<uint32_t>(__syncthreads_count(equal));
    if (equal) {
      uint32_t before = 0;
      for (uint32_t t = 0; all > equals && t < threadIdx.x; ++t) before += shared.counts[t];
      if (before < equals) collect(shared, key, i);
    }
    equals = all < equals ? equals - all : 0;
    __syncthreads();
  }
  __syncthreads();
  if (threadIdx.x >= count) return;
  const uint32_t key = shared.keys[threadIdx.x];
  const int32_t token = shared.tokens[threadIdx.x];
  uint32_t rank = 0;
  for (uint32_t i = 0; i < count; ++i)
    rank += shared.keys[i] > key || (shared.keys[i] == key && shared.tokens[i] < token);
  const int64_t at = row * top.count + rank;
  top.tokens[at] = token;
  top.log_probs[at] = static_cast<float>(
      static_cast<double>(z[token] * top.inverse_temperature) - top.log_sums[row]);
}

}  // namespace

void top_tokens(Stream stream, const TopRows& top, const float* logits) {
  if (top.rows == 0 || top.count == 0) return;
  COVENANT_LAUNCH(top_kernel, static_cast<unsigned>(top.rows), kThreads, 0, stream, top, logits);
}

}  // namespace covenant::cuda
