#include "sparse/compress.h"

#include <cinttypes>
#include <cstring>

#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

void check_source(const cov_sparse_source& source) {
  if (source.length > 0 && (!source.base || !source.current || !source.error_feedback))
    raise(COV_INVALID_ARGUMENT, "base, current and errorFeedback are needed");
  if (!(source.error_decay >= 0 && source.error_decay <= 1)) {
    raise(COV_INVALID_ARGUMENT, "errorDecay is %g; it can be 0 to 1",
          static_cast<double>(source.error_decay));
  }
}

void check_fault(unsigned long long fault, const cov_tensor_info* tensors) {
  if (fault == ~0ull) return;
  const char* const name = tensors[fault >> 32].name;
  if ((fault & UINT32_MAX) == COV_SPARSE_NON_FINITE) {
    throw Failure{sparse::refuse(
        COV_SPARSE_NON_FINITE, "tensor %s: base, current or error feedback holds NaN or infinity",
        name)};
  }
  throw Failure{sparse::refuse(COV_SPARSE_MAGNITUDE_TOO_LARGE,
                               "tensor %s: the update has values around 2^100 or above", name)};
}

}  // namespace

void compress_on_device(Device& device, const cov_sparse_source& source, const HostPlan& host,
                        uint8_t* body, unsigned long long* fault) {
  Arena& scratch = device.scratch();
  const SparsePlan plan = host.upload(device);
  const uint64_t tensors = host.tensors.size();
  CompressWork work{};
  work.base = source.base;
  work.current = source.current;
  work.error_feedback = source.error_feedback;
  work.error_decay = source.error_decay;
  work.fault = fault;
  work.scales = scratch.take<int32_t>(plan.chunks);
  work.top_scales = scratch.take<int32_t>(tensors);
  work.levels = scratch.take<sparse::Levels>(tensors);
  work.indices = scratch.take<uint16_t>(host.kept);
  work.values = scratch.take<float>(host.kept);
  work.body = body;
  device.fill_ones(fault, sizeof *fault);
  device.fill_zero(work.top_scales, tensors * sizeof(int32_t));
  device.fill_zero(work.scales, plan.chunks * sizeof(int32_t));
  device.fill_zero(work.levels, tensors * sizeof(sparse::Levels));
  device.fill_zero(body, host.body_bytes);
  launch_sample(device.stream(), plan, work);
  launch_levels(device.stream(), plan, work);
  launch_write(device.stream(), plan, work);
  launch_finish(device.stream(), plan, work);
}

void compress(Device& device, const cov_sparse_source& source, const cov_tensor_info* tensors,
              int32_t tensor_count, cov_sparse_format format, uint8_t* body, uint64_t body_bytes) {
  check_source(source);
  require(sparse::check_tensors(tensors, tensor_count, source.length));
  uint64_t wanted = 0;
  require(cov_sparse_size(tensors, tensor_count, format, &wanted, nullptr));
  if (body_bytes != wanted) {
    raise(COV_INVALID_ARGUMENT, "the body takes %" PRIu64 " bytes, not %" PRIu64, wanted,
          body_bytes);
  }
  const HostPlan host(tensors, tensor_count, format);
  const Arena::Scope scope(device.scratch());
  auto* const on_device = device.scratch().take<uint8_t>(body_bytes);
  auto* const fault = device.scratch().take<unsigned long long>(1);
  compress_on_device(device, source, host, on_device, fault);
  unsigned long long found = 0;
  device.download(&found, fault, sizeof found);
  device.download(body, on_device, body_bytes);
  device.finish();
  std::memcpy(body, "CVS1", 4);
  body[4] = static_cast<uint8_t>(format.mode);
  body[5] = 1;
  sparse::store_u16(body + 6, static_cast<uint16_t>(format.keep_per_chunk));
  sparse::store_u32(body + 8, static_cast<uint32_t>(tensor_count));
  check_fault(found, tensors);
}

}  // namespace covenant::cuda
