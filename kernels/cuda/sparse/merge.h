// Merging the updates of several peers on the device. Tier A: the bits of cov_sparse_merge followed
// by cov_merged_apply.
#pragma once

#include "sparse/plan.h"

namespace covenant::cuda {

// Updates on the device, and what is found about them. All pointers are device memory.
struct MergeWork {
  const uint8_t* const* bodies;  // of the peers with weight, in order
  int32_t peers;
  const float* weights;
  float total_weight;
  int32_t rule;
  const float* factors;  // clipping, [tensor · peers + peer]; null: none
  float rate;
};

// What the merge is for; unused pointers are null.
struct MergeOutput {
  float* parameters;          // theta <- theta - rate·A
  uint16_t* shadow;           // bf16 of the new theta, at the same places
  const uint32_t* skip;       // per tensor: leave it as it is
  uint32_t* non_finite;       // per tensor: set to 1 where A is not finite
  uint32_t* sizes;            // per chunk: bytes in the merged update
  const uint64_t* offsets;    // per chunk: where it goes in `merged`
  uint8_t* merged;
};

// Sets *fault to 1 when a body breaks a rule of the format; counts magnitudes for the norms when
// `counts` (per peer and tensor 512) is not null. top_codes: per peer and tensor, cleared.
void launch_check(Stream stream, const SparsePlan& plan, const uint8_t* const* bodies,
                  int32_t peers, uint32_t* top_codes, uint32_t* counts, uint32_t* fault);
// norms[tensor · norm_stride + peer] from the counts of `peers` bodies.
void launch_norms(Stream stream, const SparsePlan& plan, const uint8_t* const* bodies,
                  int32_t peers, const uint32_t* counts, double* norms, int32_t norm_stride);
// Clipping factors from the norms of all peers.
void launch_factors(Stream stream, const SparsePlan& plan, int32_t peers, const double* norms,
                    float* factors);
// One pass over all chunks for any combination of outputs.
void launch_merge(Stream stream, const SparsePlan& plan, const MergeWork& work,
                  const MergeOutput& output);
// offsets[i] = first + sizes[0] + ... + sizes[i - 1]; offsets has count + 1 entries.
void launch_offsets(Stream stream, const uint32_t* sizes, uint32_t count, uint64_t first,
                    uint64_t* offsets);

// The whole calls; bodies are in host memory.
void sparse_merge(Device& device, const cov_merge_input& input, const cov_tensor_info* tensors,
                  int32_t tensor_count, cov_sparse_format format, cov_bytes* merged);
void sparse_step(Device& device, float* parameters, uint16_t* shadow, uint64_t length,
                 const cov_merge_input& input, const cov_tensor_info* tensors,
                 int32_t tensor_count, cov_sparse_format format, float rate, int32_t* skipped,
                 int32_t* skipped_count);

// cov_merged_apply: `merged` is in host memory, `parameters` on the device.
void merged_apply(Device& device, float* parameters, uint64_t length, const uint8_t* merged,
                  uint64_t merged_bytes, const cov_tensor_info* tensors, int32_t tensor_count,
                  float rate, int32_t* skipped, int32_t* skipped_count);

}  // namespace covenant::cuda
