// Finding what changed, and coding it: one warp for each chunk. Lanes look at a block of 16 weights
// each, then one of them codes all 32 blocks; the chunks of a model keep the device busy.
#include "codec/delta.cuh"
#include "codec/delta_coder.cuh"

namespace covenant::cuda {
namespace {

constexpr uint32_t kMask = 0xffffffffu;
constexpr uint32_t kCountThreads = 256;
constexpr uint64_t kCountWeights = 32768;  // by a block
constexpr uint32_t kPart = 32 * kDeltaBlock;  // weights that a warp looks at together

__device__ __forceinline__ uint32_t differing(uint32_t a, uint32_t b) {
  const uint32_t x = a ^ b;
  return ((x & 0xffffu) != 0 ? 1u : 0u) + (x >> 16 != 0 ? 1u : 0u);
}

__global__ void __launch_bounds__(kCountThreads)
    count_kernel(const uint16_t* base, const uint16_t* next, uint64_t count, uint32_t* changed) {
  const uint64_t first = static_cast<uint64_t>(blockIdx.x) * kCountWeights;
  const uint64_t end = min(count, first + kCountWeights);
  const bool vector = (reinterpret_cast<uintptr_t>(base) | reinterpret_cast<uintptr_t>(next)) % 16 == 0;
  uint32_t own = 0;
  for (uint64_t at = first + 8 * threadIdx.x; at < end; at += 8 * kCountThreads) {
    if (vector && at + 8 <= end) {
      const uint4 a = __ldcs(reinterpret_cast<const uint4*>(base + at));
      const uint4 b = __ldcs(reinterpret_cast<const uint4*>(next + at));
      own += differing(a.x, b.x) + differing(a.y, b.y) + differing(a.z, b.z) + differing(a.w, b.w);
    } else {
      for (uint64_t i = at; i < at + 8 && i < end; ++i) own += base[i] != next[i] ? 1u : 0u;
    }
  }
  own = __reduce_add_sync(kMask, own);
  if (threadIdx.x % 32 == 0 && own > 0) atomicAdd(&changed[first / COV_DELTA_CHUNK], own);
}

// What a warp works on: 32 blocks of a chunk in shared memory.
struct Part {
  uint16_t base[kPart];
  uint16_t next[kPart];
  uint8_t smallest[32];  // exponent of each block
  uint8_t differs[32];
};

// Loads a lane's block; returns how many weights it has.
__device__ __forceinline__ uint32_t load_block(const uint16_t* from, uint64_t at, uint64_t end,
                                               uint16_t* to) {
  const uint64_t first = at + threadIdx.x * kDeltaBlock;
  const uint32_t n = first >= end ? 0u : static_cast<uint32_t>(min(uint64_t{kDeltaBlock}, end - first));
  if (n == kDeltaBlock && reinterpret_cast<uintptr_t>(from + first) % 16 == 0) {
    const auto* const source = reinterpret_cast<const uint4*>(from + first);
    auto* const target = reinterpret_cast<uint4*>(to + threadIdx.x * kDeltaBlock);
    target[0] = source[0];
    target[1] = source[1];
  } else {
    for (uint32_t i = 0; i < n; ++i) to[threadIdx.x * kDeltaBlock + i] = from[first + i];
  }
  return n;
}

__device__ __forceinline__ uint8_t smallest_exponent(const uint16_t* block, uint32_t n) {
  uint32_t smallest = 255;
  for (uint32_t i = 0; i < n; ++i) smallest = min(smallest, exponent_of(block[i]));
  return static_cast<uint8_t>(smallest);
}

__device__ __forceinline__ uint32_t block_weights(uint64_t at, uint64_t end, uint32_t block) {
  return static_cast<uint32_t>(min(uint64_t{kDeltaBlock}, end - at - block * kDeltaBlock));
}

__global__ void __launch_bounds__(32)
    encode_kernel(const uint16_t* base, const uint16_t* next, uint64_t count, const DeltaJob* jobs,
                  uint32_t* sizes) {
  __shared__ DeltaContexts contexts;
  __shared__ __align__(16) Part part;
  const DeltaJob job = jobs[blockIdx.x];
  const uint64_t start = job.chunk * COV_DELTA_CHUNK;
  const uint64_t end = min(count, start + COV_DELTA_CHUNK);
  contexts.clear();
  DeltaEncoder coder(contexts, job.at, job.bytes);
  DeltaWalk<DeltaEncoder> walk(coder);
  for (uint64_t at = start; at < end; at += kPart) {
    const uint32_t own = threadIdx.x * kDeltaBlock;
    const uint32_t n = load_block(base, at, end, part.base);
    load_block(next, at, end, part.next);
    bool differs = false;
    for (uint32_t i = 0; i < n; ++i) differs = differs || part.base[own + i] != part.next[own + i];
    part.smallest[threadIdx.x] = smallest_exponent(part.base + own, n);
    part.differs[threadIdx.x] = differs ? 1 : 0;
    __syncwarp();
    if (threadIdx.x == 0) {
      for (uint32_t block = 0; block < 32 && at + block * kDeltaBlock < end; ++block) {
        if (walk.block(part.smallest[block], part.differs[block] != 0))
          walk.weights(part.base + block * kDeltaBlock, part.next + block * kDeltaBlock,
                       block_weights(at, end, block));
      }
    }
    __syncwarp();
  }
  if (threadIdx.x == 0) sizes[blockIdx.x] = coder.finish();
}

// Weights as they are, at any address.
__device__ __forceinline__ uint32_t copy_raw(const uint8_t* code, uint16_t* weights, uint64_t start,
                                             uint64_t end) {
  uint32_t changed = 0;
  for (uint64_t i = start + threadIdx.x; i < end; i += 32) {
    const uint8_t* const at = code + 2 * (i - start);
    const auto weight = static_cast<uint16_t>(at[0] | at[1] << 8);
    changed += weight != weights[i] ? 1u : 0u;
    weights[i] = weight;
  }
  return __reduce_add_sync(kMask, changed);
}

__global__ void __launch_bounds__(32)
    decode_kernel(uint16_t* weights, uint64_t count, const DeltaJob* jobs,
                  unsigned long long* first_bad, unsigned long long* changed) {
  __shared__ DeltaContexts contexts;
  __shared__ __align__(16) Part part;
  const DeltaJob job = jobs[blockIdx.x];
  const uint64_t start = job.chunk * COV_DELTA_CHUNK;
  const uint64_t end = min(count, start + COV_DELTA_CHUNK);
  if (job.raw != 0) {
    const uint32_t found = copy_raw(job.at, weights, start, end);
    if (threadIdx.x == 0) atomicAdd(changed, static_cast<unsigned long long>(found));
    return;
  }
  contexts.clear();
  DeltaDecoder coder(contexts, job.at, job.bytes);
  DeltaWalk<DeltaDecoder> walk(coder);
  for (uint64_t at = start; at < end; at += kPart) {
    const uint32_t own = threadIdx.x * kDeltaBlock;
    const uint32_t n = load_block(weights, at, end, part.base);
    part.smallest[threadIdx.x] = smallest_exponent(part.base + own, n);
    part.differs[threadIdx.x] = 0;
    __syncwarp();
    if (threadIdx.x == 0) {
      for (uint32_t block = 0; block < 32 && at + block * kDeltaBlock < end; ++block) {
        if (!walk.block(part.smallest[block], false)) continue;
        part.differs[block] = 1;
        walk.weights(part.base + block * kDeltaBlock, part.next + block * kDeltaBlock,
                     block_weights(at, end, block));
      }
    }
    __syncwarp();
    if (part.differs[threadIdx.x] != 0)
      for (uint32_t i = 0; i < n; ++i) weights[at + own + i] = part.next[own + i];
    __syncwarp();
  }
  if (threadIdx.x != 0) return;
  if (!walk.good() || !coder.finished())
    atomicMin(first_bad, static_cast<unsigned long long>(job.chunk));
  atomicAdd(changed, static_cast<unsigned long long>(walk.changed()));
}

}  // namespace

void launch_delta_count(Stream stream, const uint16_t* base, const uint16_t* next, uint64_t count,
                        uint32_t* changed) {
  static_assert(COV_DELTA_CHUNK % kCountWeights == 0);
  if (count == 0) return;
  const auto blocks = static_cast<uint32_t>((count + kCountWeights - 1) / kCountWeights);
  COVENANT_LAUNCH(count_kernel, blocks, kCountThreads, 0, stream, base, next, count, changed);
}

void launch_delta_encode(Stream stream, const uint16_t* base, const uint16_t* next, uint64_t count,
                         const DeltaJob* jobs, uint32_t job_count, uint32_t* sizes) {
  if (job_count == 0) return;
  COVENANT_LAUNCH(encode_kernel, job_count, 32, 0, stream, base, next, count, jobs, sizes);
}

void launch_delta_decode(Stream stream, uint16_t* weights, uint64_t count, const DeltaJob* jobs,
                         uint32_t job_count, unsigned long long* first_bad,
                         unsigned long long* changed) {
  if (job_count == 0) return;
  COVENANT_LAUNCH(decode_kernel, job_count, 32, 0, stream, weights, count, jobs, first_bad, changed);
}

}  // namespace covenant::cuda
