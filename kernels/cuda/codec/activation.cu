// Quantising codecs. A block of 64 values is spread over 16 lanes, four neighbours each: its largest
// magnitude and the last four rounds of its Hadamard transform go by shuffles.
#include "codec/activation.cuh"

#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kLanes = 16;  // of a block of values
constexpr uint32_t kMask = 0xffffffffu;
constexpr int32_t kBlock = codec::kActivationBlock;

static_assert(kBlock == 4 * kLanes);

// Where the blocks of a payload lie.
struct Shape {
  uint32_t blocks;  // of all rows
  uint32_t row_blocks;
  int32_t width;
  uint64_t row_bytes;
  bool vector;  // four values of a row are one aligned load
};

// NaN stays NaN: that of the device's arithmetic, 0x7fffffff, would round to a zero.
__device__ __forceinline__ uint16_t round_bf16(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// The smallest bf16 that is not below a value >= 0.
__device__ __forceinline__ uint16_t above(uint32_t bits) {
  return static_cast<uint16_t>((bits + 0xffffu) >> 16);
}

__device__ __forceinline__ float widen(uint32_t bf16) { return __uint_as_float(bf16 << 16); }

__device__ __forceinline__ bool is_finite(float value) {
  return (__float_as_uint(value) & 0x7f800000u) != 0x7f800000u;
}

// The lane's four values of a block that has n.
__device__ __forceinline__ void load_four(const float* block, int32_t n, bool vector, float v[4]) {
  const auto first = static_cast<int32_t>(4 * (threadIdx.x % kLanes));
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = 0.0f;
  if (vector && first < n) {
    const float4 four = __ldcs(reinterpret_cast<const float4*>(block + first));
    v[0] = four.x;
    v[1] = four.y;
    v[2] = four.z;
    v[3] = four.w;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (first + i < n) v[i] = block[first + i];
  }
}

__device__ __forceinline__ void store_four(float* block, int32_t n, bool vector, const float v[4]) {
  const auto first = static_cast<int32_t>(4 * (threadIdx.x % kLanes));
  if (vector && first < n) {
    __stcs(reinterpret_cast<float4*>(block + first), make_float4(v[0], v[1], v[2], v[3]));
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (first + i < n) block[first + i] = v[i];
  }
}

__device__ __forceinline__ void rotate_pair(float& a, float& b) {
  const float sum = __fadd_rn(a, b);
  b = __fsub_rn(a, b);
  a = sum;
}

// Walsh-Hadamard of the block in six rounds, then / 8; the additions of the CPU.
__device__ __forceinline__ void hadamard(float v[4]) {
  rotate_pair(v[0], v[1]);
  rotate_pair(v[2], v[3]);
  rotate_pair(v[0], v[2]);
  rotate_pair(v[1], v[3]);
#pragma unroll
  for (int half = 1; half < static_cast<int>(kLanes); half *= 2) {
    const bool upper = (threadIdx.x & static_cast<uint32_t>(half)) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float other = __shfl_xor_sync(kMask, v[i], half);
      v[i] = upper ? __fsub_rn(other, v[i]) : __fadd_rn(v[i], other);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = __fmul_rn(v[i], 0.125f);
}

// Two bytes at any address.
__device__ __forceinline__ void put_pair(uint8_t* at, uint32_t pair) {
  if (reinterpret_cast<uintptr_t>(at) % 2 == 0) {
    *reinterpret_cast<uint16_t*>(at) = static_cast<uint16_t>(pair);
  } else {
    at[0] = static_cast<uint8_t>(pair);
    at[1] = static_cast<uint8_t>(pair >> 8);
  }
}
__device__ __forceinline__ uint32_t get_pair(const uint8_t* at) {
  if (reinterpret_cast<uintptr_t>(at) % 2 == 0) return *reinterpret_cast<const uint16_t*>(at);
  return static_cast<uint32_t>(at[0]) | static_cast<uint32_t>(at[1]) << 8;
}

// The place of the thread's block; n 0: there is none.
struct Place {
  uint64_t values;  // index of its first value
  uint64_t bytes;   // in the body
  int32_t n;
};

__device__ __forceinline__ Place place_of(const Shape& shape, uint32_t block_bytes) {
  const uint32_t block = blockIdx.x * (kThreads / kLanes) + threadIdx.x / kLanes;
  if (block >= shape.blocks) return {0, 0, 0};
  const uint32_t row = block / shape.row_blocks;
  const uint32_t own = block - row * shape.row_blocks;
  const auto at = static_cast<int32_t>(own) * kBlock;
  return {static_cast<uint64_t>(row) * static_cast<uint64_t>(shape.width) +
              static_cast<uint64_t>(at),
          row * shape.row_bytes + static_cast<uint64_t>(own) * block_bytes,
          min(kBlock, shape.width - at)};
}

// Device code cannot ask the host's function, only for what it gave.
template <bool kInt4>
constexpr float kLargest =
    codec::activation_max(kInt4 ? COV_ACTIVATION_INT4 : COV_ACTIVATION_INT8);

template <bool kInt4>
__global__ void __launch_bounds__(kThreads)
    encode_blocks_kernel(Shape shape, const float* values, uint8_t* body, uint32_t* fault) {
  constexpr float kMost = kInt4 ? 7.0f : 127.0f;
  const Place place = place_of(shape, kInt4 ? 2 + kBlock / 2 : 2 + kBlock);
  const uint32_t lane = threadIdx.x % kLanes;
  float v[4];
  load_four(values + place.values, place.n, shape.vector, v);
  if (kInt4) hadamard(v);
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) largest = max(largest, __float_as_uint(v[i]) & 0x7fffffffu);
#pragma unroll
  for (int half = 1; half < static_cast<int>(kLanes); half *= 2)
    largest = max(largest, __shfl_xor_sync(kMask, largest, half));
  if (place.n == 0) return;
  if (!(__uint_as_float(largest) <= kLargest<kInt4>)) {
    atomicMax(fault, 1u);
    return;
  }
  const uint32_t scale = above(__float_as_uint(__fdiv_rn(__uint_as_float(largest), kMost)));
  const float step = widen(scale);
  uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float code = step == 0.0f ? 0.0f : rintf(__fdiv_rn(v[i], step));
    const float held = code > kMost ? kMost : code < -kMost ? -kMost : code;
    const auto bits = static_cast<uint32_t>(static_cast<int32_t>(held));
    codes |= kInt4 ? (bits & 15u) << (4 * i) : (bits & 255u) << (8 * i);
  }
  uint8_t* const out = body + place.bytes;
  if (lane == 0) put_pair(out, scale);
  if (kInt4) {
    put_pair(out + 2 + 2 * lane, codes);
  } else if (static_cast<int32_t>(4 * lane) + 4 <= place.n) {
    put_pair(out + 2 + 4 * lane, codes);
    put_pair(out + 4 + 4 * lane, codes >> 16);
  } else {
    for (uint32_t i = 0; static_cast<int32_t>(4 * lane + i) < place.n; ++i)
      out[2 + 4 * lane + i] = static_cast<uint8_t>(codes >> (8 * i));
  }
}

template <bool kInt4>
__global__ void __launch_bounds__(kThreads)
    decode_blocks_kernel(Shape shape, const uint8_t* body, uint32_t scale_max, float* values,
                         uint32_t* fault) {
  constexpr int32_t kMost = kInt4 ? 7 : 127;
  const Place place = place_of(shape, kInt4 ? 2 + kBlock / 2 : 2 + kBlock);
  const uint32_t lane = threadIdx.x % kLanes;
  const uint8_t* const in = body + place.bytes;
  uint32_t scale = 0;
  uint32_t codes = 0;
  if (place.n > 0) {
    scale = get_pair(in);
    if (kInt4) {
      codes = get_pair(in + 2 + 2 * lane);
    } else if (static_cast<int32_t>(4 * lane) + 4 <= place.n) {
      codes = get_pair(in + 2 + 4 * lane) | get_pair(in + 4 + 4 * lane) << 16;
    } else {
      for (uint32_t i = 0; static_cast<int32_t>(4 * lane + i) < place.n; ++i)
        codes |= static_cast<uint32_t>(in[2 + 4 * lane + i]) << (8 * i);
    }
  }
  bool good = scale <= scale_max;
  const float step = widen(scale);
  float v[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t bits = kInt4 ? codes >> (4 * i) & 15u : codes >> (8 * i) & 255u;
    const int32_t code = kInt4 ? static_cast<int32_t>(bits ^ 8u) - 8
                               : static_cast<int32_t>(bits ^ 128u) - 128;
    good = good && code >= -kMost && (scale != 0 || code == 0);
    v[i] = __fmul_rn(__int2float_rn(code), step);
  }
  if (kInt4) hadamard(v);
  // Zeros beyond the end of a block are finite; what a transform adds there is not asked for.
#pragma unroll
  for (int i = 0; i < 4; ++i)
    good = good && (static_cast<int32_t>(4 * lane) + i >= place.n || is_finite(v[i]));
  if (!good) atomicMax(fault, 1u);
  store_four(values + place.values, place.n, shape.vector, v);
}

__global__ void __launch_bounds__(kThreads)
    encode_bf16_kernel(const float* values, uint64_t count, bool vector, uint8_t* body,
                       uint32_t* fault) {
  const uint64_t first = 4 * (static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x);
  auto* const out = reinterpret_cast<uint16_t*>(body);
  bool finite = true;
  if (vector && first + 4 <= count) {
    const float4 four = __ldcs(reinterpret_cast<const float4*>(values + first));
    const ushort4 rounded = make_ushort4(round_bf16(four.x), round_bf16(four.y),
                                         round_bf16(four.z), round_bf16(four.w));
    finite = is_finite(widen(rounded.x)) && is_finite(widen(rounded.y)) &&
             is_finite(widen(rounded.z)) && is_finite(widen(rounded.w));
    __stcs(reinterpret_cast<ushort4*>(out + first), rounded);
  } else {
    for (uint64_t i = first; i < first + 4 && i < count; ++i) {
      out[i] = round_bf16(values[i]);
      finite = finite && is_finite(widen(out[i]));
    }
  }
  if (!finite) atomicMax(fault, 1u);
}

__global__ void __launch_bounds__(kThreads)
    decode_bf16_kernel(const uint8_t* body, uint64_t count, bool vector, float* values,
                       uint32_t* fault) {
  const uint64_t first = 4 * (static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x);
  const auto* const in = reinterpret_cast<const uint16_t*>(body);
  bool finite = true;
  if (vector && first + 4 <= count) {
    const ushort4 four = __ldcs(reinterpret_cast<const ushort4*>(in + first));
    const float4 wide = make_float4(widen(four.x), widen(four.y), widen(four.z), widen(four.w));
    finite = is_finite(wide.x) && is_finite(wide.y) && is_finite(wide.z) && is_finite(wide.w);
    __stcs(reinterpret_cast<float4*>(values + first), wide);
  } else {
    for (uint64_t i = first; i < first + 4 && i < count; ++i) {
      values[i] = widen(in[i]);
      finite = finite && is_finite(values[i]);
    }
  }
  if (!finite) atomicMax(fault, 1u);
}

bool aligned(const float* values) { return reinterpret_cast<uintptr_t>(values) % 16 == 0; }

Shape shape_of(const ActivationWork& work, const float* values) {
  const auto row_blocks = static_cast<uint32_t>((work.width + kBlock - 1) / kBlock);
  return {static_cast<uint32_t>(work.rows) * row_blocks, row_blocks, work.width,
          codec::activation_row_bytes(work.kind, work.width),
          work.width % 4 == 0 && aligned(values)};
}

uint32_t grid_of(uint64_t threads) {
  return static_cast<uint32_t>((threads + kThreads - 1) / kThreads);
}

uint64_t count_of(const ActivationWork& work) {
  return static_cast<uint64_t>(work.rows) * static_cast<uint64_t>(work.width);
}

}  // namespace

void launch_activation_encode(Stream stream, const ActivationWork& work, const float* values,
                              uint8_t* body) {
  if (work.rows == 0) return;
  if (work.kind == COV_ACTIVATION_BF16) {
    const uint64_t count = count_of(work);
    COVENANT_LAUNCH(encode_bf16_kernel, grid_of((count + 3) / 4), kThreads, 0, stream, values,
                    count, aligned(values), body, work.fault);
    return;
  }
  const Shape shape = shape_of(work, values);
  const uint32_t grid = grid_of(uint64_t{kLanes} * shape.blocks);
  if (work.kind == COV_ACTIVATION_INT8) {
    COVENANT_LAUNCH((encode_blocks_kernel<false>), grid, kThreads, 0, stream, shape, values, body,
                    work.fault);
  } else {
    COVENANT_LAUNCH((encode_blocks_kernel<true>), grid, kThreads, 0, stream, shape, values, body,
                    work.fault);
  }
}

void launch_activation_decode(Stream stream, const ActivationWork& work, const uint8_t* body,
                              float* values) {
  if (work.rows == 0) return;
  if (work.kind == COV_ACTIVATION_BF16) {
    const uint64_t count = count_of(work);
    COVENANT_LAUNCH(decode_bf16_kernel, grid_of((count + 3) / 4), kThreads, 0, stream, body, count,
                    aligned(values), values, work.fault);
    return;
  }
  const Shape shape = shape_of(work, values);
  const uint32_t grid = grid_of(uint64_t{kLanes} * shape.blocks);
  if (work.kind == COV_ACTIVATION_INT8) {
    COVENANT_LAUNCH((decode_blocks_kernel<false>), grid, kThreads, 0, stream, shape, body,
                    codec::activation_scale_max(COV_ACTIVATION_INT8), values, work.fault);
  } else {
    COVENANT_LAUNCH((decode_blocks_kernel<true>), grid, kThreads, 0, stream, shape, body,
                    codec::activation_scale_max(COV_ACTIVATION_INT4), values, work.fault);
  }
}

void activation_encode(Device& device, int32_t kind, const float* values, int32_t rows,
                       int32_t width, uint8_t* payload, uint64_t payload_bytes) {
  require(codec::begin_activation(kind, rows, width, payload, payload_bytes));
  if (rows == 0) return;
  const Arena::Scope scope(device.scratch());
  const uint64_t bytes = payload_bytes - COV_ACTIVATION_HEADER_BYTES;
  auto* const body = device.scratch().take<uint8_t>(bytes);
  auto* const fault = device.scratch().take<uint32_t>(1);
  device.fill_zero(fault, sizeof *fault);
  launch_activation_encode(device.stream(), {kind, rows, width, fault}, values, body);
  uint32_t found = 0;
  device.download(&found, fault, sizeof found);
  device.download(payload + COV_ACTIVATION_HEADER_BYTES, body, bytes);
  device.finish();
  if (found != 0) require(codec::activation_not_finite());
}

void activation_decode(Device& device, int32_t kind, const uint8_t* payload,
                       uint64_t payload_bytes, int32_t rows, int32_t width, float* values) {
  require(codec::check_activation(kind, rows, width, payload, payload_bytes));
  if (rows == 0) return;
  const Arena::Scope scope(device.scratch());
  const uint64_t bytes = payload_bytes - COV_ACTIVATION_HEADER_BYTES;
  auto* const body = device.scratch().take<uint8_t>(bytes);
  auto* const fault = device.scratch().take<uint32_t>(1);
  device.fill_zero(fault, sizeof *fault);
  device.upload(body, payload + COV_ACTIVATION_HEADER_BYTES, bytes);
  launch_activation_decode(device.stream(), {kind, rows, width, fault}, body, values);
  uint32_t found = 0;
  device.download(&found, fault, sizeof found);
  device.finish();
  if (found != 0) require(codec::activation_out_of_range());
}

}  // namespace covenant::cuda
