// Pass 4 of compress, over one byte of each chunk.
#include "sparse/chunk.cuh"
#include "sparse/compress.h"

namespace covenant::cuda {
namespace {

constexpr uint32_t kWarps = 8;

__global__ void __launch_bounds__(256) header_kernel(SparsePlan plan, CompressWork work) {
  if (*work.fault != ~0ull) return;
  const uint32_t t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= static_cast<uint32_t>(plan.tensor_count) || work.top_scales[t] == 0) return;
  const int32_t top = work.top_scales[t] - kScaleBias;
  uint8_t* const header = work.body + plan.tensors[t].body_at;
  header[0] = static_cast<uint8_t>(top);
  header[1] = static_cast<uint8_t>(top >> 8);
  if (plan.mode != 2) return;
  header[2] = static_cast<uint8_t>(sparse::kLevelBias - work.levels[t].low);
  header[3] = static_cast<uint8_t>(work.levels[t].high + sparse::kLevelBias);
}

// One warp for each chunk.
__global__ void __launch_bounds__(kWarps * 32) code_kernel(SparsePlan plan, CompressWork work) {
  if (*work.fault != ~0ull) return;
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t chunk = blockIdx.x * kWarps + threadIdx.x / 32;
  if (chunk >= plan.chunks) return;
  const int32_t scale = work.scales[chunk];
  if (scale == 0) return;
  const int32_t t = tensor_of(plan, chunk);
  const TensorPlan& tensor = plan.tensors[t];
  const uint32_t own = chunk - tensor.first_chunk;
  uint8_t* const bytes = work.body + tensor.body_at + static_cast<uint64_t>(plan.header_bytes) +
                         static_cast<uint64_t>(own) * static_cast<uint64_t>(plan.full.bytes);
  const int32_t code = scale_code(work.top_scales[t], scale);
  if (code > 0) {
    if (lane == 0) bytes[0] = static_cast<uint8_t>(code);
    return;
  }
  // Too far below the largest: it takes back what it wrote.
  const ChunkShape shape = shape_of_chunk(plan, tensor, own);
  for (uint32_t i = lane; i < static_cast<uint32_t>(shape.bytes); i += 32) bytes[i] = 0;
  const uint64_t first =
      tensor.first_kept + static_cast<uint64_t>(own) * static_cast<uint64_t>(plan.full.kept);
  float* const e =
      work.error_feedback + tensor.offset + static_cast<uint64_t>(own) * COV_SPARSE_CHUNK;
  for (uint32_t j = lane; j < static_cast<uint32_t>(shape.kept); j += 32)
    e[work.indices[first + j]] = work.values[first + j];
}

}  // namespace

void launch_finish(Stream stream, const SparsePlan& plan, const CompressWork& work) {
  if (plan.chunks == 0) return;
  COVENANT_LAUNCH(header_kernel, (static_cast<uint32_t>(plan.tensor_count) + 255) / 256, 256, 0,
                  stream, plan, work);
  COVENANT_LAUNCH(code_kernel, (plan.chunks + kWarps - 1) / kWarps, kWarps * 32, 0, stream, plan,
                  work);
}

}  // namespace covenant::cuda
