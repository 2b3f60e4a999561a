// One round of two peers through the C API: each compresses what its training changed, the updates
// are merged and applied, and the root of the new state is what everybody must agree on.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "covenant/device.h"
#include "covenant/hash.h"
#include "covenant/model.h"
#include "covenant/sparse.h"

static void check(cov_status status) {
  if (status.code == COV_OK) return;
  std::fprintf(stderr, "%s: %s\n", cov_sparse_code_name(status.code), status.message);
  std::exit(1);
}

int main() {
  std::printf("%s\n", cov_device_report());
  const cov_model_shape shape = {
      .vocab_size = 128, .hidden_size = 64, .intermediate_size = 160, .layer_count = 2,
      .head_count = 4, .kv_head_count = 2, .max_positions = 64, .tie_word_embeddings = 1,
      .rope_theta = 10000.0, .rms_norm_eps = 1e-5};
  const int32_t count = cov_tensor_count(&shape);
  std::vector<cov_tensor_info> tensors(count);
  check(cov_tensor_table(&shape, tensors.data(), count));
  std::vector<float> shared(cov_parameter_count(&shape));
  check(cov_initial_parameters(&shape, 42, shared.data(), shared.size()));

  const cov_sparse_format format = {.mode = 2, .keep_per_chunk = 64};
  uint64_t body_bytes = 0, kept_max = 0;
  check(cov_sparse_size(tensors.data(), count, format, &body_bytes, &kept_max));
  std::vector<std::vector<uint8_t>> bodies;
  for (uint64_t peer = 1; peer <= 2; ++peer) {
    std::vector<float> trained(shared.size()), error_feedback(shared.size());
    check(cov_initial_parameters(&shape, peer, trained.data(), trained.size()));
    const cov_sparse_source source = {.base = shared.data(), .current = trained.data(),
                                      .error_feedback = error_feedback.data(),
                                      .length = shared.size(), .error_decay = 0.95f};
    bodies.emplace_back(body_bytes);
    check(cov_sparse_compress(&source, tensors.data(), count, format, cov_default_threads(),
                              bodies.back().data(), body_bytes));
  }

  const uint8_t* updates[] = {bodies[0].data(), bodies[1].data()};
  const uint64_t lengths[] = {body_bytes, body_bytes};
  const float weights[] = {1.0f, 1.0f};
  const cov_merge_input input = {.bodies = updates, .body_bytes = lengths, .weights = weights,
                                 .count = 2, .rule = COV_MERGE_CONTRIBUTORS,
                                 .clip_to_median_norm = 1};
  cov_bytes merged = {};
  check(cov_sparse_merge(&input, tensors.data(), count, format, cov_default_threads(), &merged));
  std::vector<int32_t> skipped(count);
  int32_t skipped_count = 0;
  check(cov_merged_apply(shared.data(), shared.size(), merged.data, merged.length, tensors.data(),
                         count, 0.8f, skipped.data(), &skipped_count));
  cov_bytes_free(&merged);

  uint8_t root[COV_HASH_BYTES];
  check(cov_state_root(shared.data(), shared.size(), tensors.data(), count, cov_default_threads(),
                       root));
  std::printf("%llu bytes for %zu parameters, state root ",
              static_cast<unsigned long long>(body_bytes), shared.size());
  for (const uint8_t byte : root) std::printf("%02x", byte);
  std::printf("\n");
}
