// Decoding, clipping, summing and applying, one block for each chunk of 4096 parameters.
//
// Sums and weights of the chunk live in shared memory. The warps decode a batch of peers side by side;
// their values are then added peer by peer, in order, all values of a peer at once, because its
// indices are distinct. So each coordinate is summed in the order of the peers, whatever the threads
// do. The parameters are loaded before all that and wait in registers.
#include "sparse/body.cuh"
#include "sparse/merge.h"
#include "sparse/order.cuh"
#include "sparse/quarter.cuh"

namespace covenant::cuda {
namespace {

constexpr uint32_t kBatchMax = 64;
constexpr uint32_t kListBytes = 12 << 10;
// Up to so many values of a peer in a chunk, one warp adds all.
constexpr uint32_t kWarpAdds = 128;

// Where the pieces of shared memory lie, in bytes.
struct MergeLayout {
  uint32_t batch;          // peers decoded before their values are added
  uint32_t staging_words;  // of a warp
  uint32_t staging_at;
  uint32_t values_at;   // float[batch][kept], aligned to 16
  uint32_t indices_at;  // uint16_t[batch][kept]
  uint32_t bytes;
};

struct Shared {
  float* sum;
  float* weight;
  uint32_t* staging;
  float* values;
  uint16_t* indices;
};

__device__ __forceinline__ Shared shared_of(const MergeLayout& layout) {
  COVENANT_DYNAMIC_SHARED(unsigned char, memory);
  return {reinterpret_cast<float*>(memory), reinterpret_cast<float*>(memory) + COV_SPARSE_CHUNK,
          reinterpret_cast<uint32_t*>(memory + layout.staging_at),
          reinterpret_cast<float*>(memory + layout.values_at),
          reinterpret_cast<uint16_t*>(memory + layout.indices_at)};
}

struct Place {
  int32_t tensor;
  uint32_t own;
  int32_t n;
  uint64_t at;  // in the parameters
};

// What the values of a chunk of peer `p` are multiplied to: at the low level and at the high one.
struct Magnitudes {
  float low;
  float high;
};

__device__ __forceinline__ Magnitudes magnitudes_of(const MergeWork& work, const Place& place,
                                                    const DeviceHeader& header, uint32_t code,
                                                    uint32_t p) {
  const int32_t scale = header.top - 255 + static_cast<int32_t>(code);
  const float w = work.weights[p];
  float f = 1.0f;
  if (work.factors != nullptr)
    f = work.factors[static_cast<uint64_t>(place.tensor) * static_cast<uint64_t>(work.peers) + p];
  // Rounding is symmetric, so the sign can come last.
  return {__fmul_rn(w, __fmul_rn(f, power(2 * scale + header.levels.low))),
          __fmul_rn(w, __fmul_rn(f, power(2 * scale + header.levels.high)))};
}

// Decodes the chunks of up to eight peers by one warp, four lanes each, into their slots of the
// lists. The lane's peer is first + `b`, if b < count.
__device__ __forceinline__ void decode_quarters(const SparsePlan& plan, const MergeWork& work,
                                                const Place& place, uint32_t first, uint32_t b,
                                                uint32_t count, const Shared& shared,
                                                uint32_t* kept) {
  const auto mode = static_cast<uint32_t>(plan.mode);
  const uint32_t lane = threadIdx.x % kQuarterLanes;
  Quarter quarter{};
  Magnitudes magnitudes{};
  if (b < count) {
    const uint8_t* const at = work.bodies[first + b] + plan.tensors[place.tensor].body_at;
    const DeviceHeader header = read_header(at, plan.mode);
    quarter = load_quarter(at + plan.header_bytes + static_cast<uint64_t>(place.own) *
                                                        static_cast<uint64_t>(plan.full.bytes),
                           mode);
    if (quarter.code != 0)
      magnitudes = magnitudes_of(work, place, header, quarter.code, first + b);
    if (lane == 0) kept[b] = quarter.code == 0 ? 0u : static_cast<uint32_t>(kQuarteredKept);
  }
  uint32_t j = 0;
  quarter_sum(static_cast<uint32_t>(__popc(quarter.bitmap)), j);
  float* const values = shared.values + b * kQuarteredKept;
  uint16_t* const indices = shared.indices + b * kQuarteredKept;
  if (quarter.code != 0) {
    // In order of rank: values, and the lower part of indices, two to a word.
    auto* const pairs = reinterpret_cast<uint32_t*>(indices + 16 * lane);
    auto* const fours = reinterpret_cast<float4*>(values + 16 * lane);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      pairs[i] = quarter.low_part(2 * i) | quarter.low_part(2 * i + 1) << 16;
    const auto value = [&](int i) {
      const uint32_t bits = mode == 2 ? quarter.values >> (2 * i) : quarter.values >> i;
      const float magnitude = mode == 2 && (bits & 2u) != 0 ? magnitudes.high : magnitudes.low;
      return (bits & 1u) != 0 ? -magnitude : magnitude;
    };
#pragma unroll
    for (int i = 0; i < 16; i += 4)
      fours[i / 4] = make_float4(value(i), value(i + 1), value(i + 2), value(i + 3));
  }
  __syncwarp();
  // In order of the bitmap: the upper part.
  if (quarter.code != 0) {
    for (uint32_t rest = quarter.bitmap; rest != 0; rest &= rest - 1, ++j) {
      const uint32_t position = 32 * lane + static_cast<uint32_t>(__ffs(static_cast<int>(rest))) - 1;
      indices[j] = static_cast<uint16_t>(indices[j] | (position - j) << 6);
    }
  }
  __syncwarp();
}

// Decodes the chunk of peer `p` by one warp into slot `b` of the lists: indices, and what is to be
// added at each. Returns how many there are.
__device__ __forceinline__ uint32_t decode_peer(const SparsePlan& plan, const MergeWork& work,
                                                const Place& place, const ChunkShape& shape,
                                                uint32_t p, uint32_t b, const Shared& shared,
                                                uint32_t* staging) {
  const TensorPlan& tensor = plan.tensors[place.tensor];
  const uint8_t* const at = work.bodies[p] + tensor.body_at;
  const DeviceHeader header = read_header(at, plan.mode);
  const StagedChunk staged = stage_chunk(
      at + plan.header_bytes +
          static_cast<uint64_t>(place.own) * static_cast<uint64_t>(plan.full.bytes),
      shape, staging);
  const uint32_t code = staged.code();
  if (code == 0) return 0;
  const Magnitudes magnitudes = magnitudes_of(work, place, header, code, p);
  float* const values = shared.values + b * static_cast<uint32_t>(plan.full.kept);
  uint16_t* const indices = shared.indices + b * static_cast<uint32_t>(plan.full.kept);
  visit_indices(staged, [&](uint32_t j, uint32_t index, uint32_t) {
    const uint32_t value = staged.value(j, static_cast<uint32_t>(plan.mode));
    const float magnitude = (value & 2u) != 0 ? magnitudes.high : magnitudes.low;
    values[j] = (value & 1u) != 0 ? -magnitude : magnitude;
    indices[j] = static_cast<uint16_t>(index);
  });
  return static_cast<uint32_t>(shape.kept);
}

// Adds the values of slot `b`, by the threads `first`, `first` + `step`, ...
__device__ __forceinline__ void add_values(const Shared& shared, uint32_t slot, uint32_t count,
                                           float w, uint32_t first, uint32_t step) {
  for (uint32_t j = first; j < count; j += step) {
    const uint32_t index = shared.indices[slot + j];
    shared.sum[index] = __fadd_rn(shared.sum[index], shared.values[slot + j]);
    shared.weight[index] = __fadd_rn(shared.weight[index], w);
  }
}

// Sums the chunk over the peers, in order.
__device__ __forceinline__ void sum_peers(const SparsePlan& plan, const MergeWork& work,
                                          const MergeLayout& layout, const Place& place,
                                          const ChunkShape& shape, const Shared& shared,
                                          uint32_t* kept) {
  const uint32_t warp = threadIdx.x / 32;
  const auto peers = static_cast<uint32_t>(work.peers);
  const auto each = static_cast<uint32_t>(plan.full.kept);
  for (uint32_t first = 0; first < peers; first += layout.batch) {
    const uint32_t count = min(layout.batch, peers - first);
    if (quartered(shape)) {
      for (uint32_t b = warp * kQuarteredChunks; b < count; b += kBlockWarps * kQuarteredChunks) {
        const uint32_t own = b + threadIdx.x % 32 / kQuarterLanes;
        decode_quarters(plan, work, place, first, own, count, shared, kept);
      }
    }
    for (uint32_t b = warp; b < count && !quartered(shape); b += kBlockWarps) {
      const uint32_t decoded = decode_peer(plan, work, place, shape, first + b, b, shared,
                                           shared.staging + warp * layout.staging_words);
      if (threadIdx.x % 32 == 0) kept[b] = decoded;
      __syncwarp();
    }
    __syncthreads();
    if (each <= kWarpAdds) {
      // Few values: one warp adds them all without a barrier of the block.
      for (uint32_t b = 0; b < count && warp == 0; ++b) {
        add_values(shared, b * each, kept[b], work.weights[first + b], threadIdx.x, 32);
        __syncwarp();
      }
    } else {
      for (uint32_t b = 0; b < count; ++b) {
        add_values(shared, b * each, kept[b], work.weights[first + b], threadIdx.x, kBlock);
        __syncthreads();
      }
    }
    __syncthreads();
  }
}

// bf16 by rounding to nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ uint16_t to_bf16(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

__device__ __forceinline__ void load_parameters(const float* parameters, const Place& place,
                                                bool vector, float* theta) {
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const uint64_t at = place.at + index_of(4 * g);
    if (vector) {
      const float4 four = *reinterpret_cast<const float4*>(parameters + at);
      theta[4 * g] = four.x;
      theta[4 * g + 1] = four.y;
      theta[4 * g + 2] = four.z;
      theta[4 * g + 3] = four.w;
    } else {
#pragma unroll
      for (int i = 4 * g; i < 4 * g + 4; ++i) {
        theta[i] = 0.0f;
        if (index_of(i) < static_cast<uint32_t>(place.n))
          theta[i] = parameters[place.at + index_of(i)];
      }
    }
  }
}

__device__ __forceinline__ void store_parameters(const MergeOutput& output, const Place& place,
                                                 bool vector, const float* theta) {
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const uint64_t at = place.at + index_of(4 * g);
    if (vector) {
      *reinterpret_cast<float4*>(output.parameters + at) =
          make_float4(theta[4 * g], theta[4 * g + 1], theta[4 * g + 2], theta[4 * g + 3]);
      if (output.shadow != nullptr) {
        *reinterpret_cast<ushort4*>(output.shadow + at) =
            make_ushort4(to_bf16(theta[4 * g]), to_bf16(theta[4 * g + 1]),
                         to_bf16(theta[4 * g + 2]), to_bf16(theta[4 * g + 3]));
      }
      continue;
    }
#pragma unroll
    for (int i = 4 * g; i < 4 * g + 4; ++i) {
      if (index_of(i) >= static_cast<uint32_t>(place.n)) continue;
      output.parameters[place.at + index_of(i)] = theta[i];
      if (output.shadow != nullptr) output.shadow[place.at + index_of(i)] = to_bf16(theta[i]);
    }
  }
}

// How the positions of m of n values are stored; twin of PositionLayout.
struct Positions {
  bool bitmap;
  uint32_t low_bits;
  uint32_t low_bytes;
  uint32_t bytes;
};

__device__ __forceinline__ Positions positions_of(uint32_t n, uint32_t m) {
  Positions p{};
  p.low_bits = 31u - static_cast<uint32_t>(__clz(static_cast<int>(n / m)));
  p.low_bytes = (p.low_bits * m + 7) / 8;
  p.bytes = p.low_bytes + (m + ((n - 1) >> p.low_bits) + 7) / 8;
  if ((n + 7) / 8 < p.bytes) p = {true, 0, 0, (n + 7) / 8};
  return p;
}

__device__ __forceinline__ void or_bits(uint32_t* words, uint32_t bit, uint32_t width,
                                        uint32_t value) {
  const uint32_t shift = bit % 32;
  if (width == 0) return;
  atomicOr(&words[bit / 32], value << shift);
  if (shift + width > 32) atomicOr(&words[bit / 32 + 1], value >> (32 - shift));
}

// Writes the chunk of the merged update: put together where the sums were, then copied. `mask` says
// which of the thread's values were sent, `a` what they came to.
__device__ __forceinline__ void write_merged(const float* a, uint32_t mask, uint32_t n,
                                             uint32_t* words, uint32_t* counts, uint8_t* out) {
  uint32_t places[kGroups];
  const uint32_t m = place_in_order(mask, counts, places);
  const Positions positions = positions_of(n, m > 0 ? m : 1);
  const uint32_t size = m == 0 ? 2 : 2 + positions.bytes + 4 * m;
  for (uint32_t i = threadIdx.x; i < (size + 3) / 4 + 1; i += kBlock) words[i] = i == 0 ? m : 0;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
    if ((mask >> i & 1u) == 0) continue;
    const uint32_t j = places[i / 4]++;
    const uint32_t index = index_of(i);
    if (positions.bitmap) {
      or_bits(words, 16 + index, 1, 1);
    } else {
      or_bits(words, 16 + j * positions.low_bits, positions.low_bits,
              index & ((1u << positions.low_bits) - 1u));
      or_bits(words, 16 + 8 * positions.low_bytes + (index >> positions.low_bits) + j, 1, 1);
    }
    or_bits(words, 8 * (2 + positions.bytes + 4 * j), 32, __float_as_uint(a[i]));
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < size; i += kBlock)
    out[i] = static_cast<uint8_t>(words[i / 4] >> (8 * (i % 4)));
}

__global__ void __launch_bounds__(kBlock, 4)
    merge_kernel(SparsePlan plan, MergeWork work, MergeOutput output, MergeLayout layout) {
  __shared__ uint32_t counts[32];
  __shared__ uint32_t kept[kBatchMax];
  const Shared shared = shared_of(layout);
  const uint32_t chunk = blockIdx.x;
  const int32_t t = tensor_of(plan, chunk);
  const TensorPlan& tensor = plan.tensors[t];
  const uint32_t own = chunk - tensor.first_chunk;
  const ChunkShape shape = shape_of_chunk(plan, tensor, own);
  const Place place{t, own, shape.n, tensor.offset + static_cast<uint64_t>(own) * COV_SPARSE_CHUNK};

  const bool apply = output.parameters != nullptr && !(output.skip != nullptr && output.skip[t] != 0);
  const bool vector = place.n == COV_SPARSE_CHUNK &&
                      (reinterpret_cast<uintptr_t>(output.parameters) + 4 * place.at) % 16 == 0 &&
                      (reinterpret_cast<uintptr_t>(output.shadow) + 2 * place.at) % 8 == 0;
  float theta[kOwned];
  if (apply) load_parameters(output.parameters, place, vector, theta);

  for (uint32_t i = threadIdx.x; i < 2 * COV_SPARSE_CHUNK; i += kBlock) shared.sum[i] = 0.0f;
  __syncthreads();
  sum_peers(plan, work, layout, place, shape, shared, kept);

  // Weights are positive, so a coordinate with weight 0 was not sent.
  float a[kOwned];
  uint32_t mask = 0;
  bool finite = true;
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
    const uint32_t index = index_of(i);
    const float weight = shared.weight[index];
    a[i] = 0.0f;
    if (weight == 0.0f) continue;
    mask |= 1u << i;
    a[i] = __fdiv_rn(shared.sum[index],
                     work.rule == COV_MERGE_ALL ? work.total_weight : weight);
    finite = finite && (__float_as_uint(a[i]) & 0x7f800000u) != 0x7f800000u;
  }
  if (output.non_finite != nullptr && !finite) atomicMax(&output.non_finite[t], 1u);
  if (apply) {
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      if ((mask >> i & 1u) != 0) theta[i] = __fsub_rn(theta[i], __fmul_rn(work.rate, a[i]));
    }
    store_parameters(output, place, vector, theta);
  }
  if (output.sizes != nullptr) {
    uint32_t places[kGroups];
    const uint32_t m = place_in_order(mask, counts, places);
    if (threadIdx.x == 0) {
      output.sizes[chunk] =
          m == 0 ? 2 : 2 + positions_of(static_cast<uint32_t>(place.n), m).bytes + 4 * m;
    }
  }
  if (output.merged != nullptr) {
    write_merged(a, mask, static_cast<uint32_t>(place.n), reinterpret_cast<uint32_t*>(shared.sum),
                 counts, output.merged + output.offsets[chunk]);
  }
}

MergeLayout layout_of(const SparsePlan& plan) {
  const auto kept = static_cast<uint32_t>(plan.full.kept);
  MergeLayout layout{};
  layout.staging_words = staging_words(plan.full);
  layout.batch = std::min(kBatchMax, std::max(1u, kListBytes / (6 * kept)));
  layout.staging_at = 2 * COV_SPARSE_CHUNK * sizeof(float);
  // Aligned to what a quarter writes at once.
  layout.values_at = (layout.staging_at + 4 * layout.staging_words * kBlockWarps + 15) / 16 * 16;
  layout.indices_at = layout.values_at + 4 * kept * layout.batch;
  layout.bytes = layout.indices_at + 2 * kept * layout.batch;
  return layout;
}

}  // namespace

void launch_merge(Stream stream, const SparsePlan& plan, const MergeWork& work,
                  const MergeOutput& output) {
  if (plan.chunks == 0) return;
  const MergeLayout layout = layout_of(plan);
  // More than 48 KiB needs to be asked for.
  (void)cudaFuncSetAttribute(merge_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(layout.bytes));
  COVENANT_LAUNCH(merge_kernel, plan.chunks, kBlock, layout.bytes, stream, plan, work, output,
                  layout);
}

}  // namespace covenant::cuda
