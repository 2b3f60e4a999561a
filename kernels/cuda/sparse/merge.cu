// The host side of merging: uploads, checks, and the order of the passes.
#include "sparse/merge.h"

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

// Bounds the memory for counting magnitudes.
constexpr int32_t kPeersAtOnce = 64;
constexpr uint64_t kCounts = 512;

void check_input(const cov_merge_input& input) {
  if (input.count < 1 || input.count > COV_SPARSE_PEERS_MAX) {
    raise(COV_INVALID_ARGUMENT, "%d updates to merge; 1 to %d are possible", input.count,
          COV_SPARSE_PEERS_MAX);
  }
  if (input.rule != COV_MERGE_CONTRIBUTORS && input.rule != COV_MERGE_ALL)
    raise(COV_INVALID_ARGUMENT, "merge rule %d is not known", input.rule);
  bool any = false;
  for (int32_t r = 0; r < input.count; ++r) {
    if (!(input.weights[r] >= 0) || !std::isfinite(input.weights[r]))
      raise(COV_INVALID_ARGUMENT, "weight %d is not a finite number of at least 0", r);
    any |= input.weights[r] > 0;
  }
  if (!any) raise(COV_INVALID_ARGUMENT, "all weights are zero");
}

// The CPU's sentence about the first update that it refuses.
void refuse_first(const cov_merge_input& input, const cov_tensor_info* tensors,
                  int32_t tensor_count, cov_sparse_format format) {
  for (int32_t r = 0; r < input.count; ++r) {
    const cov_status status = cov_sparse_check(input.bodies[r], input.body_bytes[r], tensors,
                                               tensor_count, format, nullptr);
    if (status.code != COV_OK)
      throw Failure{sparse::refuse(status.code, "update %d: %s", r, status.message)};
  }
}

bool well_framed(const cov_merge_input& input, int32_t r, const HostPlan& host,
                 int32_t tensor_count, cov_sparse_format format) {
  const uint8_t* const body = input.bodies[r];
  return input.body_bytes[r] == host.body_bytes && std::memcmp(body, "CVS1", 4) == 0 &&
         body[4] == format.mode && body[5] == 1 &&
         sparse::load_u16(body + 6) == format.keep_per_chunk &&
         sparse::load_u32(body + 8) == static_cast<uint32_t>(tensor_count);
}

// Updates on the device, checked, with their clipping factors; lives in scratch memory.
struct Prepared {
  SparsePlan plan{};
  MergeWork work{};
};

Prepared prepare(Device& device, const cov_merge_input& input, const HostPlan& host,
                 const cov_tensor_info* tensors, int32_t tensor_count, cov_sparse_format format) {
  Arena& scratch = device.scratch();
  for (int32_t r = 0; r < input.count; ++r) {
    if (!well_framed(input, r, host, tensor_count, format)) {
      refuse_first(input, tensors, tensor_count, format);
      raise(COV_INTERNAL, "update %d is refused without a reason", r);
    }
  }
  Prepared prepared;
  prepared.plan = host.upload(device);
  const auto count = static_cast<size_t>(input.count);
  std::vector<const uint8_t*> active;
  std::vector<const uint8_t*> idle;
  std::vector<float> weights;
  for (size_t r = 0; r < count; ++r) {
    auto* const body = scratch.take<uint8_t>(host.body_bytes);
    device.upload(body, input.bodies[r], host.body_bytes);
    (input.weights[r] > 0 ? active : idle).push_back(body);
    if (input.weights[r] > 0) weights.push_back(input.weights[r]);
  }
  MergeWork& work = prepared.work;
  work.peers = static_cast<int32_t>(active.size());
  work.rule = input.rule;
  for (const float weight : weights) work.total_weight = work.total_weight + weight;
  std::vector<const uint8_t*> all = active;
  all.insert(all.end(), idle.begin(), idle.end());
  auto** const bodies = scratch.take<const uint8_t*>(count);
  auto* const device_weights = scratch.take<float>(weights.size());
  device.upload(bodies, all.data(), count * sizeof(uint8_t*));
  device.upload(device_weights, weights.data(), weights.size() * sizeof(float));
  work.bodies = bodies;
  work.weights = device_weights;

  const auto cells = static_cast<uint64_t>(tensor_count);
  const auto most = static_cast<uint64_t>(std::min(input.count, kPeersAtOnce));
  auto* const fault = scratch.take<uint32_t>(1);
  auto* const top_codes = scratch.take<uint32_t>(most * cells);
  const bool clip = input.clip_to_median_norm != 0;
  uint32_t* const counts = clip ? scratch.take<uint32_t>(most * cells * kCounts) : nullptr;
  double* const norms = clip ? scratch.take<double>(cells * active.size()) : nullptr;
  device.fill_zero(fault, sizeof *fault);
  for (int32_t first = 0; first < input.count; first += kPeersAtOnce) {
    const int32_t here = std::min(kPeersAtOnce, input.count - first);
    device.fill_zero(top_codes, most * cells * sizeof(uint32_t));
    if (clip) device.fill_zero(counts, most * cells * kCounts * sizeof(uint32_t));
    launch_check(device.stream(), prepared.plan, bodies + first, here, top_codes, counts, fault);
    const int32_t with_weight = std::min(here, work.peers - first);
    if (clip && with_weight > 0) {
      launch_norms(device.stream(), prepared.plan, bodies + first, with_weight, counts,
                   norms + first, work.peers);
    }
  }
  if (clip) {
    auto* const factors = scratch.take<float>(cells * active.size());
    launch_factors(device.stream(), prepared.plan, work.peers, norms, factors);
    work.factors = factors;
  }
  uint32_t found = 0;
  device.download(&found, fault, sizeof found);
  device.finish();
  if (found != 0) {
    refuse_first(input, tensors, tensor_count, format);
    raise(COV_INTERNAL, "an update is refused without a reason");
  }
  return prepared;
}

// True if no sum and no quotient of the merge can overflow, judged from weights alone: values of
// the format are below 2^118.
bool cannot_overflow(const cov_merge_input& input) {
  double sum = 0;
  double least = INFINITY;
  for (int32_t r = 0; r < input.count; ++r) {
    if (input.weights[r] == 0) continue;
    sum += static_cast<double>(input.weights[r]);
    least = std::min(least, static_cast<double>(input.weights[r]));
  }
  const double most = std::ldexp(sum, 118);
  return most < 1e38 && most / least < 1e38;
}

}  // namespace

void sparse_merge(Device& device, const cov_merge_input& input, const cov_tensor_info* tensors,
                  int32_t tensor_count, cov_sparse_format format, cov_bytes* merged) {
  check_input(input);
  require(cov_sparse_size(tensors, tensor_count, format, nullptr, nullptr));
  const HostPlan host(tensors, tensor_count, format);
  const Arena::Scope scope(device.scratch());
  const Prepared prepared = prepare(device, input, host, tensors, tensor_count, format);
  const uint32_t chunks = prepared.plan.chunks;
  MergeOutput output{};
  output.sizes = device.scratch().take<uint32_t>(chunks);
  auto* const offsets = device.scratch().take<uint64_t>(uint64_t{chunks} + 1);
  launch_merge(device.stream(), prepared.plan, prepared.work, output);
  launch_offsets(device.stream(), output.sizes, chunks, sparse::kMergedHeaderBytes, offsets);
  uint64_t length = 0;
  device.download(&length, offsets + chunks, sizeof length);
  device.finish();
  output.sizes = nullptr;
  output.offsets = offsets;
  output.merged = device.scratch().take<uint8_t>(length);
  launch_merge(device.stream(), prepared.plan, prepared.work, output);
  auto* const data = static_cast<uint8_t*>(std::malloc(length));
  if (data == nullptr) throw std::bad_alloc();
  *merged = {data, length};
  const uint64_t header = sparse::kMergedHeaderBytes;
  device.download(data + header, output.merged + header, length - header);
  device.finish();
  std::memcpy(data, "CVM1", 4);
  data[4] = static_cast<uint8_t>(input.rule);
  data[5] = input.clip_to_median_norm ? 1 : 0;
  sparse::store_u16(data + 6, static_cast<uint16_t>(prepared.work.peers));
  sparse::store_u32(data + 8, static_cast<uint32_t>(tensor_count));
}

void sparse_step(Device& device, float* parameters, uint16_t* shadow, uint64_t length,
                 const cov_merge_input& input, const cov_tensor_info* tensors,
                 int32_t tensor_count, cov_sparse_format format, float rate, int32_t* skipped,
                 int32_t* skipped_count) {
  *skipped_count = 0;
  check_input(input);
  if (!std::isfinite(rate)) raise(COV_INVALID_ARGUMENT, "outerLearningRate is not finite");
  require(sparse::check_tensors(tensors, tensor_count, length));
  require(cov_sparse_size(tensors, tensor_count, format, nullptr, nullptr));
  const HostPlan host(tensors, tensor_count, format);
  const Arena::Scope scope(device.scratch());
  Prepared prepared = prepare(device, input, host, tensors, tensor_count, format);
  prepared.work.rate = rate;
  MergeOutput output{};
  std::vector<uint32_t> non_finite(static_cast<size_t>(tensor_count), 0);
  if (!cannot_overflow(input)) {
    // A pass ahead, because a tensor is left alone as a whole.
    const uint64_t bytes = non_finite.size() * sizeof(uint32_t);
    output.non_finite = device.scratch().take<uint32_t>(non_finite.size());
    device.fill_zero(output.non_finite, bytes);
    launch_merge(device.stream(), prepared.plan, prepared.work, output);
    device.download(non_finite.data(), output.non_finite, bytes);
    output.skip = output.non_finite;
    output.non_finite = nullptr;
  }
  output.parameters = parameters;
  output.shadow = shadow;
  launch_merge(device.stream(), prepared.plan, prepared.work, output);
  device.finish();
  for (int32_t t = 0; t < tensor_count; ++t) {
    if (non_finite[static_cast<size_t>(t)] != 0) skipped[(*skipped_count)++] = t;
  }
}

}  // namespace covenant::cuda
