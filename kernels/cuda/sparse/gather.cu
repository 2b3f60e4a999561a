// Passes 1 and 3 of compress: 16 bytes of traffic per parameter. One block works on one chunk, each
// thread on 16 values that stay in registers.
//
// The k-th largest magnitude lies at or above the k-th largest of the threads' own maxima, because
// each of those k threads holds one. With 256 maxima and k = 64 that bound lets through about 75
// candidates of 4096; it is searched by counting at barriers, to within half of k. The candidates,
// in order of index, are then ranked by comparing all with all. A chunk where more than 256 pass, or
// k above 128, is searched value by value instead: same result, about twice the time.
#include "sparse/chunk.cuh"
#include "sparse/compress.h"
#include "sparse/encode.cuh"
#include "sparse/levels.cuh"
#include "sparse/order.cuh"

namespace covenant::cuda {
namespace {

constexpr uint32_t kThreads = kBlock;
constexpr uint32_t kWarps = kBlockWarps;
constexpr int kValues = kOwned;
constexpr uint32_t kCandidates = 256;
constexpr int32_t kKeepFast = 128;

struct Shared {
  uint32_t warp_max[kWarps];
  uint32_t warp_count[kWarps];
  uint32_t group_count[32];
  unsigned long long sum;
  uint32_t bits[kCandidates];  // of the candidates' values
  uint16_t index[kCandidates];
};

__device__ __forceinline__ uint32_t key_of(float value) {
  return __float_as_uint(value) & 0x7fffffffu;
}

// e <- fma(beta, e, base - current), 16 bytes at a time. All loads are issued before the first use.
__device__ __forceinline__ void accumulate_aligned(const CompressWork& work, uint64_t at,
                                                   float* a) {
  float4 base[kGroups];
  float4 current[kGroups];
  float4 e[kGroups];
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
    const uint64_t place = at + index_of(4 * j);
    base[j] = __ldcs(reinterpret_cast<const float4*>(work.base + place));
    current[j] = __ldcs(reinterpret_cast<const float4*>(work.current + place));
    e[j] = *reinterpret_cast<const float4*>(work.error_feedback + place);
  }
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
    const float beta = work.error_decay;
    a[4 * j] = __fmaf_rn(beta, e[j].x, __fsub_rn(base[j].x, current[j].x));
    a[4 * j + 1] = __fmaf_rn(beta, e[j].y, __fsub_rn(base[j].y, current[j].y));
    a[4 * j + 2] = __fmaf_rn(beta, e[j].z, __fsub_rn(base[j].z, current[j].z));
    a[4 * j + 3] = __fmaf_rn(beta, e[j].w, __fsub_rn(base[j].w, current[j].w));
    *reinterpret_cast<float4*>(work.error_feedback + at + index_of(4 * j)) =
        make_float4(a[4 * j], a[4 * j + 1], a[4 * j + 2], a[4 * j + 3]);
  }
}

// The same for a short chunk or an address that is not a multiple of 16. Values beyond the end are
// 0 and never chosen, because they come last.
__device__ __forceinline__ void accumulate_any(const CompressWork& work, uint64_t at, int32_t n,
                                               float* a) {
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    const uint32_t index = index_of(i);
    a[i] = 0.0f;
    if (index >= static_cast<uint32_t>(n)) continue;
    const float difference = __fsub_rn(work.base[at + index], work.current[at + index]);
    a[i] = __fmaf_rn(work.error_decay, work.error_feedback[at + index], difference);
    work.error_feedback[at + index] = a[i];
  }
}

__device__ __forceinline__ uint32_t block_max(uint32_t value, Shared& shared) {
  const uint32_t own = __reduce_max_sync(kFullMask, value);
  if (threadIdx.x % 32 == 0) shared.warp_max[threadIdx.x / 32] = own;
  __syncthreads();
  uint32_t largest = 0;
#pragma unroll
  for (uint32_t w = 0; w < kWarps; ++w) largest = max(largest, shared.warp_max[w]);
  return largest;
}

__device__ __forceinline__ uint32_t block_sum(uint32_t value, Shared& shared) {
  const uint32_t own = __reduce_add_sync(kFullMask, value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared.warp_count[threadIdx.x / 32] = own;
  __syncthreads();
  uint32_t sum = 0;
#pragma unroll
  for (uint32_t w = 0; w < kWarps; ++w) sum += shared.warp_count[w];
  return sum;
}

// A bound that at least `kept` threads' maxima reach, and at most half as many again unless many are
// equal. `largest` is the largest of all.
__device__ __forceinline__ uint32_t candidate_bound(uint32_t own_max, uint32_t largest,
                                                    int32_t kept) {
  uint32_t low = 0;             // reached by enough
  uint32_t high = largest + 1;  // reached by too few
  uint32_t probe = largest > (1u << 23) ? largest - (1u << 23) : largest / 2;
  uint32_t stride = 1u << 23;  // one octave
  while (high - low > 1) {
    const int count = __syncthreads_count(own_max >= probe);
    if (count >= kept && count <= kept + kept / 2) return probe;
    if (count >= kept)
      low = probe;
    else
      high = probe;
    // Downwards in growing strides until a lower bound is known, then by halves.
    if (stride < 1u << 31) stride *= 2;
    if (low == 0 && stride < high)
      probe = high - stride;
    else
      probe = low + (high - low) / 2;
  }
  return low;
}

// Ranks the candidates in shared memory; writes the kept ones in order of index. Adds their cut
// mantissas to shared.sum.
__device__ __forceinline__ void keep_candidates(uint32_t count, int32_t kept, int32_t exponent,
                                                uint16_t* indices, float* values,
                                                Shared& shared) {
  const uint32_t t = threadIdx.x;
  const uint32_t warp = t / 32;
  const bool mine = t < count;
  const uint32_t bits = mine ? shared.bits[t] : 0u;
  const uint32_t key = bits & 0x7fffffffu;
  int32_t rank = 0;
  // Warps without a candidate pass by.
  for (uint32_t c = 0; c < count && 32 * warp < count; ++c) {
    // Among equals the lower index, which stands first, wins.
    rank += (shared.bits[c] & 0x7fffffffu) >= key + (c >= t ? 1u : 0u);
  }
  const bool keep = mine && rank < kept;
  const uint32_t ballot = __ballot_sync(kFullMask, keep);
  const uint32_t cut = __reduce_add_sync(kFullMask, keep ? cut_mantissa(key, exponent) : 0u);
  if (t % 32 == 0) {
    shared.warp_count[warp] = static_cast<uint32_t>(__popc(ballot));
    if (cut > 0) atomicAdd(&shared.sum, static_cast<unsigned long long>(cut));
  }
  __syncthreads();
  uint32_t place = static_cast<uint32_t>(__popc(ballot & ((1u << (t % 32)) - 1u)));
  for (uint32_t w = 0; w < warp; ++w) place += shared.warp_count[w];
  if (keep) {
    indices[place] = shared.index[t];
    values[place] = __uint_as_float(bits);
  }
}

// Exact search over all values of the block; for any number kept and any data.
__device__ __forceinline__ void keep_by_search(const float* a, uint32_t largest, int32_t kept,
                                            int32_t exponent, uint16_t* indices, float* values,
                                            Shared& shared) {
  uint32_t low = 0;  // at least `kept` keys are at or above it
  uint32_t high = largest + 1;
  uint32_t above = 0;  // keys at or above `high`
  while (high - low > 1) {
    const uint32_t probe = low + (high - low) / 2;
    uint32_t own = 0;
#pragma unroll
    for (int i = 0; i < kValues; ++i) own += key_of(a[i]) >= probe ? 1u : 0u;
    const uint32_t count = block_sum(own, shared);
    if (count >= static_cast<uint32_t>(kept)) {
      low = probe;
    } else {
      high = probe;
      above = count;
    }
  }
  // Keys above `low` are kept, and as many equal to it as are missing, the lowest indices first.
  const uint32_t ties = static_cast<uint32_t>(kept) - above;
  uint32_t equal = 0;
  uint32_t keep = 0;
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    equal |= (key_of(a[i]) == low ? 1u : 0u) << i;
    keep |= (key_of(a[i]) > low ? 1u : 0u) << i;
  }
  uint32_t places[kGroups];
  place_in_order(equal, shared.group_count, places);
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    if ((equal >> i & 1u) != 0 && places[i / 4]++ < ties) keep |= 1u << i;
  }
  place_in_order(keep, shared.group_count, places);
  uint32_t cut = 0;
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    if ((keep >> i & 1u) == 0) continue;
    const uint32_t place = places[i / 4]++;
    indices[place] = static_cast<uint16_t>(index_of(i));
    values[place] = a[i];
    cut += cut_mantissa(key_of(a[i]), exponent);
  }
  if (cut > 0) atomicAdd(&shared.sum, static_cast<unsigned long long>(cut));
}

__device__ __forceinline__ void keep_largest(const float* a, uint32_t own_max, uint32_t largest,
                                             int32_t kept, int32_t exponent, uint16_t* indices,
                                             float* values, Shared& shared) {
  uint32_t count = kCandidates + 1;
  if (kept <= kKeepFast) {
    const uint32_t bound = candidate_bound(own_max, largest, kept);
    uint32_t mask = 0;
#pragma unroll
    for (int i = 0; i < kValues; ++i) mask |= (key_of(a[i]) >= bound ? 1u : 0u) << i;
    uint32_t places[kGroups];
    count = place_in_order(mask, shared.group_count, places);
    if (count <= kCandidates) {
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        if ((mask >> i & 1u) == 0) continue;
        const uint32_t place = places[i / 4]++;
        shared.bits[place] = __float_as_uint(a[i]);
        shared.index[place] = static_cast<uint16_t>(index_of(i));
      }
      __syncthreads();
      keep_candidates(count, kept, exponent, indices, values, shared);
      return;
    }
  }
  keep_by_search(a, largest, kept, exponent, indices, values, shared);
}

// Error feedback, the largest values and the scale of one chunk; the biased scale, 0 when it sends
// nothing, or -1 at a fault.
__device__ __forceinline__ int32_t gather_chunk(const SparsePlan& plan, const CompressWork& work,
                                                int32_t t, const TensorPlan& tensor, uint32_t own,
                                                Shared& shared) {
  const ChunkShape shape = shape_of_chunk(plan, tensor, own);
  const uint64_t at = tensor.offset + static_cast<uint64_t>(own) * COV_SPARSE_CHUNK;
  float a[kValues];
  const uintptr_t addresses = reinterpret_cast<uintptr_t>(work.base + at) |
                              reinterpret_cast<uintptr_t>(work.current + at) |
                              reinterpret_cast<uintptr_t>(work.error_feedback + at);
  if (shape.n == COV_SPARSE_CHUNK && addresses % 16 == 0)
    accumulate_aligned(work, at, a);
  else
    accumulate_any(work, at, shape.n, a);

  uint32_t own_max = 0;
#pragma unroll
  for (int i = 0; i < kValues; ++i) own_max = max(own_max, key_of(a[i]));
  if (threadIdx.x == 0) shared.sum = 0;
  const uint32_t largest = block_max(own_max, shared);
  const auto fail = [&](int32_t code) {
    const auto fault = static_cast<unsigned long long>(t) << 32;
    if (threadIdx.x == 0) atomicMin(work.fault, fault | static_cast<unsigned long long>(code));
    return -1;
  };
  if (largest >= 0x7f800000u) return fail(COV_SPARSE_NON_FINITE);
  const auto exponent = static_cast<int32_t>(largest >> 23 > 1 ? largest >> 23 : 1);
  const uint64_t first =
      tensor.first_kept + static_cast<uint64_t>(own) * static_cast<uint64_t>(plan.full.kept);
  keep_largest(a, own_max, largest, shape.kept, exponent, work.indices + first,
               work.values + first, shared);
  __syncthreads();
  if (largest == 0) return 0;
  const int32_t scale = scale_of(shared.sum, exponent, shape.kept);
  if (scale > sparse::kTopScaleMax) return fail(COV_SPARSE_MAGNITUDE_TOO_LARGE);
  return scale < -sparse::kTopScaleMax ? 0 : scale + kScaleBias;
}

__device__ __forceinline__ void record(const CompressWork& work, int32_t t, uint32_t chunk,
                                       int32_t biased) {
  if (threadIdx.x != 0) return;
  work.scales[chunk] = biased;
  if (biased > 0) atomicMax(&work.top_scales[t], biased);
}

__global__ void __launch_bounds__(kThreads, 4)
    sample_kernel(SparsePlan plan, CompressWork work) {
  __shared__ Shared shared;
  const int32_t t = tensor_of_sample(plan, blockIdx.x);
  const TensorPlan& tensor = plan.tensors[t];
  const uint32_t own = (blockIdx.x - tensor.first_sample) * tensor.stride;
  const int32_t biased = gather_chunk(plan, work, t, tensor, own, shared);
  if (biased >= 0) record(work, t, tensor.first_chunk + own, biased);
}

__global__ void __launch_bounds__(kThreads, 4)
    write_kernel(SparsePlan plan, CompressWork work) {
  __shared__ Shared shared;
  COVENANT_DYNAMIC_SHARED(uint32_t, words);
  const uint32_t chunk = blockIdx.x;
  const int32_t t = tensor_of(plan, chunk);
  const TensorPlan& tensor = plan.tensors[t];
  const uint32_t own = chunk - tensor.first_chunk;
  int32_t biased = 0;
  if (tensor.stride > 0 && own % tensor.stride == 0) {
    biased = work.scales[chunk];  // 0 after a fault
  } else {
    biased = gather_chunk(plan, work, t, tensor, own, shared);
    if (biased < 0) return;
    record(work, t, chunk, biased);
  }
  if (biased > 0) encode_chunk(plan, work, t, tensor, own, biased - kScaleBias, words);
}

}  // namespace

void launch_sample(Stream stream, const SparsePlan& plan, const CompressWork& work) {
  if (plan.samples == 0) return;
  COVENANT_LAUNCH(sample_kernel, plan.samples, kThreads, 0, stream, plan, work);
}

void launch_write(Stream stream, const SparsePlan& plan, const CompressWork& work) {
  if (plan.chunks == 0) return;
  COVENANT_LAUNCH(write_kernel, plan.chunks, kThreads, words_of(plan.full) * sizeof(uint32_t),
                  stream, plan, work);
}

}  // namespace covenant::cuda
