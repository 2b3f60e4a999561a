// Validating bodies, and the norms and factors of clipping.
#include "sparse/body.cuh"
#include "sparse/merge.h"
#include "sparse/quarter.cuh"

namespace covenant::cuda {
namespace {

constexpr uint32_t kWarps = 8;
constexpr uint32_t kChunksPerBlock = 256;
constexpr uint32_t kCounts = 512;  // 256 scale codes at the low level, then at the high one

// True if the chunk follows every rule; `high` is the number of values at the high level.
__device__ __forceinline__ bool check_chunk(const StagedChunk& chunk, uint32_t mode,
                                            const DeviceHeader& header, uint32_t& high) {
  const ChunkShape& shape = chunk.shape;
  const uint32_t lane = threadIdx.x % 32;
  high = 0;
  if (chunk.code() == 0) {
    uint32_t any = 0;
    for (uint32_t i = lane; i < static_cast<uint32_t>(shape.bytes); i += 32) any |= chunk.bytes[i];
    return __all_sync(kFullMask, any == 0) != 0;
  }
  bool good = true;
  const uint32_t set = visit_indices(chunk, [&](uint32_t j, uint32_t index, uint32_t position) {
    good = good && index < static_cast<uint32_t>(shape.n);
    // Neighbouring bits are values of one block of 64, whose low bits must ascend.
    const bool follows =
        position > 0 && (chunk.word((position - 1) / 32) >> ((position - 1) % 32) & 1u) != 0;
    if (follows) good = good && chunk.low(j) > chunk.low(j - 1);
    if (mode == 2) high += chunk.value(j, 2) >> 1;
  });
  high = __reduce_add_sync(kFullMask, high);
  good = good && set == static_cast<uint32_t>(shape.kept);
  good = good && (high == 0 || header.levels.low != header.levels.high);
  // What fills up the last byte of each field is zero.
  const auto filled = [&](const uint8_t* field, int32_t bits) {
    return bits % 8 == 0 || field[bits / 8] >> (bits % 8) == 0;
  };
  const uint8_t* const low = chunk.bytes + 1;
  good = good && filled(low, shape.kept * sparse::kLowBits);
  good = good && filled(low + shape.low_bytes, shape.upper_bits);
  good = good && filled(low + shape.low_bytes + shape.upper_bytes, shape.value_bits);
  return __all_sync(kFullMask, good) != 0;
}

// The same for the eight chunks of a warp that are read in quarters; all lanes take part. What is
// said is said of the lane's own quarter, but for `high`.
__device__ __forceinline__ bool check_quarter(const Quarter& quarter, uint32_t mode,
                                              const DeviceHeader& header, uint32_t& high) {
  const uint32_t lane = threadIdx.x % kQuarterLanes;
  uint32_t unused = 0;
  uint32_t own_high = 0;
  if (mode == 2) own_high = static_cast<uint32_t>(__popc(quarter.values & 0xaaaaaaaau));
  high = quarter_sum(own_high, unused);
  uint32_t rank = 0;
  const uint32_t set = quarter_sum(static_cast<uint32_t>(__popc(quarter.bitmap)), rank);
  // Bit i: low part i is above the one before it.
  uint32_t last = __shfl_up_sync(kFullMask, quarter.low_part(15), 1, kQuarterLanes);
  uint32_t rising = 0;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const uint32_t low = quarter.low_part(i);
    rising |= (low > last ? 1u : 0u) << i;
    last = low;
  }
  const uint32_t pair = rising | __shfl_down_sync(kFullMask, rising, 1, kQuarterLanes) << 16;
  const uint32_t rising_low = __shfl_sync(kFullMask, pair, 0, kQuarterLanes);
  const uint32_t rising_high = __shfl_sync(kFullMask, pair, 2, kQuarterLanes);
  const uint32_t bits_before = __shfl_up_sync(kFullMask, quarter.bitmap, 1, kQuarterLanes);
  if (quarter.code == 0) {
    return (quarter.low[0] | quarter.low[1] | quarter.low[2] | quarter.bitmap | quarter.values) ==
           0;
  }
  bool good = set == static_cast<uint32_t>(kQuarteredKept);
  good = good && (high == 0 || header.levels.low != header.levels.high);
  // 127 bits: the last one fills up the byte. With 64 of them set no index reaches 4096.
  good = good && (lane != kQuarterLanes - 1 || quarter.bitmap >> 31 == 0);
  // Neighbouring bits are values of one block of 64, whose low bits must ascend.
  const uint32_t follows =
      quarter.bitmap & (quarter.bitmap << 1 | (lane > 0 ? bits_before >> 31 : 0u));
  for (uint32_t rest = follows; rest != 0; rest &= rest - 1) {
    const uint32_t below = (rest & -rest) - 1u;
    const uint32_t j = rank + static_cast<uint32_t>(__popc(quarter.bitmap & below));
    good = good && ((j < 32 ? rising_low : rising_high) >> (j % 32) & 1u) != 0;
  }
  return good;
}

// What a warp finds about chunks of one tensor of one body.
struct Found {
  uint32_t* counts;  // shared memory
  uint32_t top = 0;
  bool good = true;

  // By one lane for each chunk.
  __device__ __forceinline__ void add(uint32_t code, uint32_t kept, uint32_t high) {
    top = max(top, code);
    if (code == 0) return;
    atomicAdd(&counts[code], kept - high);
    if (high > 0) atomicAdd(&counts[256 + code], high);
  }
};

// Chunks [first, end) of a tensor by a block, eight a warp.
__device__ __forceinline__ void check_quartered(const SparsePlan& plan, const uint8_t* chunks,
                                                const DeviceHeader& header, uint32_t first,
                                                uint32_t end, Found& found) {
  const auto mode = static_cast<uint32_t>(plan.mode);
  const uint32_t own = threadIdx.x / kQuarterLanes;
  for (uint32_t base = first; base < end; base += kWarps * kQuarteredChunks) {
    const uint32_t c = base + own;
    Quarter quarter{};
    if (c < end) {
      quarter = load_quarter(
          chunks + static_cast<uint64_t>(c) * static_cast<uint64_t>(plan.full.bytes), mode);
    }
    uint32_t high = 0;
    found.good = check_quarter(quarter, mode, header, high) && found.good;
    if (threadIdx.x % kQuarterLanes == 0) found.add(quarter.code, kQuarteredKept, high);
  }
}

// Chunks [first, end) of a tensor by a block, one a warp.
__device__ __forceinline__ void check_staged(const SparsePlan& plan, const TensorPlan& tensor,
                                             const uint8_t* chunks, const DeviceHeader& header,
                                             uint32_t first, uint32_t end, uint32_t* staging,
                                             Found& found) {
  for (uint32_t c = first + threadIdx.x / 32; c < end; c += kWarps) {
    const ChunkShape shape = shape_of_chunk(plan, tensor, c);
    const StagedChunk staged = stage_chunk(
        chunks + static_cast<uint64_t>(c) * static_cast<uint64_t>(plan.full.bytes), shape, staging);
    uint32_t high = 0;
    found.good =
        check_chunk(staged, static_cast<uint32_t>(plan.mode), header, high) && found.good;
    if (threadIdx.x % 32 == 0) found.add(staged.code(), static_cast<uint32_t>(shape.kept), high);
    __syncwarp();
  }
}

// A block checks 256 chunks of one body.
__global__ void __launch_bounds__(kWarps * 32)
    check_kernel(SparsePlan plan, const uint8_t* const* bodies, uint32_t* top_codes,
                 uint32_t* counts, uint32_t* fault, uint32_t words_per_warp) {
  COVENANT_DYNAMIC_SHARED(uint32_t, staging);
  __shared__ uint32_t own_counts[kCounts];
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t lane = threadIdx.x % 32;
  const uint8_t* const body = bodies[blockIdx.y];
  uint32_t chunk = blockIdx.x * kChunksPerBlock;
  const uint32_t end = min(chunk + kChunksPerBlock, plan.chunks);
  // One round for each tensor that has chunks here.
  while (chunk < end) {
    const int32_t t = tensor_of(plan, chunk);
    const TensorPlan& tensor = plan.tensors[t];
    const uint32_t round_end = min(end, tensor.first_chunk + tensor.chunks);
    const uint8_t* const at = body + tensor.body_at;
    const DeviceHeader header = read_header(at, plan.mode);
    const uint64_t place =
        static_cast<uint64_t>(blockIdx.y) * static_cast<uint64_t>(plan.tensor_count) +
        static_cast<uint64_t>(t);
    for (uint32_t i = threadIdx.x; i < kCounts; i += kWarps * 32) own_counts[i] = 0;
    __syncthreads();
    Found found{own_counts};
    const uint8_t* const chunks = at + plan.header_bytes;
    const uint32_t first = chunk - tensor.first_chunk;
    const uint32_t last = round_end - tensor.first_chunk;
    uint32_t whole = first;  // up to there chunks are read in quarters
    if (quartered(plan.full))
      whole = last == tensor.chunks && !quartered(tensor.last) ? last - 1 : last;
    check_quartered(plan, chunks, header, first, whole, found);
    check_staged(plan, tensor, chunks, header, whole, last, staging + warp * words_per_warp, found);
    const uint32_t top = __reduce_max_sync(kFullMask, found.top);
    const bool good = __all_sync(kFullMask, found.good) != 0;
    if (lane == 0 && !good) atomicMax(fault, 1u);
    if (lane == 0 && top > 0) atomicMax(&top_codes[place], top);
    __syncthreads();
    if (counts != nullptr) {
      for (uint32_t i = threadIdx.x; i < kCounts; i += kWarps * 32) {
        if (own_counts[i] > 0) atomicAdd(&counts[place * kCounts + i], own_counts[i]);
      }
      __syncthreads();
    }
    chunk = round_end;
  }
}

// Tensor headers: valid, and all zero exactly when nothing is sent; a tensor that sends something
// has a chunk at its top scale.
__global__ void check_headers_kernel(SparsePlan plan, const uint8_t* const* bodies,
                                     const uint32_t* top_codes, uint32_t* fault) {
  const uint32_t t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= static_cast<uint32_t>(plan.tensor_count)) return;
  const DeviceHeader header =
      read_header(bodies[blockIdx.y] + plan.tensors[t].body_at, plan.mode);
  const uint32_t top =
      top_codes[static_cast<uint64_t>(blockIdx.y) * static_cast<uint64_t>(plan.tensor_count) + t];
  bool good = header.valid;
  if (top == 0) good = good && header.zero;
  if (top != 0) good = good && top == 255 && !(plan.mode == 2 && header.zero);
  if (!good) atomicMax(fault, 1u);
}

// The norm of one tensor of one peer by one warp: magnitudes P(z) in ascending order of z.
__global__ void __launch_bounds__(32)
    norm_kernel(SparsePlan plan, const uint8_t* const* bodies, const uint32_t* counts,
                double* norms, int32_t norm_stride) {
  constexpr int32_t kMagnitudes = 2 * 254 + 2 * (255 - sparse::kLevelBias) + 1;
  const auto lane = static_cast<int32_t>(threadIdx.x);
  const uint32_t t = blockIdx.x;
  const DeviceHeader header =
      read_header(bodies[blockIdx.y] + plan.tensors[t].body_at, plan.mode);
  const uint32_t* const own =
      counts +
      (static_cast<uint64_t>(blockIdx.y) * static_cast<uint64_t>(plan.tensor_count) + t) * kCounts;
  const int32_t first = 2 * (header.top - 254) + header.levels.low;
  const int32_t spread = header.levels.high - header.levels.low;
  double sum = 0;
  for (int32_t base = 0; base < kMagnitudes; base += 32) {
    // Scale code c stands at 2·(c - 1) at the low level and `spread` above that at the high one.
    const int32_t i = base + lane;
    const auto count_at = [&](int32_t place, int32_t half) {
      return place >= 0 && place % 2 == 0 && place / 2 < 255 ? own[half + place / 2 + 1] : 0u;
    };
    const uint64_t count = static_cast<uint64_t>(count_at(i, 0)) + count_at(i - spread, 256);
    double term = 0;
    if (count > 0) {
      const auto magnitude = static_cast<double>(power(first + i));
      term = __dmul_rn(static_cast<double>(count), __dmul_rn(magnitude, magnitude));
    }
    for (uint32_t rest = __ballot_sync(kFullMask, count > 0); rest != 0; rest &= rest - 1) {
      const int source = __ffs(static_cast<int>(rest)) - 1;
      sum = __dadd_rn(sum, __shfl_sync(kFullMask, term, source));
    }
  }
  if (lane == 0) norms[static_cast<uint64_t>(t) * norm_stride + blockIdx.y] = __dsqrt_rn(sum);
}

// The lower middle of the norms by rank, then the factors.
__global__ void __launch_bounds__(256)
    factor_kernel(int32_t peers, const double* norms, float* factors) {
  __shared__ double median;
  const double* const own = norms + static_cast<uint64_t>(blockIdx.x) * peers;
  for (auto p = static_cast<int32_t>(threadIdx.x); p < peers; p += 256) {
    int32_t rank = 0;
    for (int32_t q = 0; q < peers; ++q)
      rank += own[q] < own[p] || (own[q] == own[p] && q < p) ? 1 : 0;
    if (rank == (peers - 1) / 2) median = own[p];
  }
  __syncthreads();
  for (auto p = static_cast<int32_t>(threadIdx.x); p < peers; p += 256) {
    factors[static_cast<uint64_t>(blockIdx.x) * peers + p] =
        own[p] > median ? __double2float_rn(__ddiv_rn(median, own[p])) : 1.0f;
  }
}

}  // namespace

void launch_check(Stream stream, const SparsePlan& plan, const uint8_t* const* bodies,
                  int32_t peers, uint32_t* top_codes, uint32_t* counts, uint32_t* fault) {
  if (plan.tensor_count == 0) return;
  const auto y = static_cast<uint32_t>(peers);
  if (plan.chunks > 0) {
    const uint32_t words = staging_words(plan.full);
    const dim3 grid((plan.chunks + kChunksPerBlock - 1) / kChunksPerBlock, y);
    COVENANT_LAUNCH(check_kernel, grid, kWarps * 32, kWarps * words * sizeof(uint32_t), stream,
                    plan, bodies, top_codes, counts, fault, words);
  }
  const dim3 grid((static_cast<uint32_t>(plan.tensor_count) + 127) / 128, y);
  COVENANT_LAUNCH(check_headers_kernel, grid, 128, 0, stream, plan, bodies, top_codes, fault);
}

void launch_norms(Stream stream, const SparsePlan& plan, const uint8_t* const* bodies,
                  int32_t peers, const uint32_t* counts, double* norms, int32_t norm_stride) {
  if (plan.tensor_count == 0) return;
  const dim3 grid(static_cast<uint32_t>(plan.tensor_count), static_cast<uint32_t>(peers));
  COVENANT_LAUNCH(norm_kernel, grid, 32, 0, stream, plan, bodies, counts, norms, norm_stride);
}

void launch_factors(Stream stream, const SparsePlan& plan, int32_t peers, const double* norms,
                    float* factors) {
  if (plan.tensor_count == 0) return;
  COVENANT_LAUNCH(factor_kernel, static_cast<uint32_t>(plan.tensor_count), 256, 0, stream, peers,
                  norms, factors);
}

}  // namespace covenant::cuda
