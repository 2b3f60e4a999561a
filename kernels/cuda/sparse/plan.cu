#include "sparse/plan.h"

#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

ChunkShape shape_of(int32_t n, cov_sparse_format format) {
  const sparse::ChunkLayout layout(n, format);
  return {layout.n,           layout.kept,       layout.low_bytes,   layout.upper_bits,
          layout.upper_bytes, layout.value_bits, layout.value_bytes, layout.bytes()};
}

}  // namespace

HostPlan::HostPlan(const cov_tensor_info* table, int32_t tensor_count, cov_sparse_format format) {
  plan.mode = format.mode;
  plan.header_bytes = static_cast<int32_t>(sparse::tensor_header_bytes(format));
  plan.full = shape_of(COV_SPARSE_CHUNK, format);
  plan.tensor_count = tensor_count;
  body_bytes = sparse::kHeaderBytes;
  tensors.reserve(static_cast<size_t>(tensor_count));
  for (int32_t t = 0; t < tensor_count; ++t) {
    const uint64_t length = table[t].length;
    const auto chunks = static_cast<uint32_t>(sparse::chunk_count(length));
    ChunkShape last = plan.full;
    if (chunks > 0) last = shape_of(sparse::chunk_length(length, chunks - 1), format);
    const auto stride =
        static_cast<uint32_t>(format.mode == 2 ? sparse::sample_stride(chunks) : 0);
    const uint32_t samples = stride == 0 ? 0 : (chunks - 1) / stride + 1;
    tensors.push_back({table[t].offset, length, kept, body_bytes, plan.chunks, chunks, stride,
                       plan.samples, samples, last});
    const sparse::TensorSize size = sparse::tensor_size(length, format);
    plan.chunks += chunks;
    plan.samples += samples;
    kept += size.kept;
    body_bytes += size.bytes;
  }
}

SparsePlan HostPlan::upload(Device& device) const {
  SparsePlan on_device = plan;
  TensorPlan* const memory = device.scratch().take<TensorPlan>(tensors.size());
  device.upload(memory, tensors.data(), tensors.size() * sizeof(TensorPlan));
  on_device.tensors = memory;
  return on_device;
}

}  // namespace covenant::cuda
