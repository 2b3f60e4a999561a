// Merging: the two rules, weights, clipping, order, threads, and applying the result.
#include <algorithm>
#include <cstring>

#include "sparse/fixtures.h"

using namespace covenant_test;

namespace {

constexpr cov_sparse_format kFormat{2, 64};

struct Merged {
  std::vector<uint8_t> bytes;
  cov_status status;
};

Merged merge(const std::vector<std::vector<uint8_t>>& bodies, const std::vector<float>& weights,
             const std::vector<cov_tensor_info>& tensors, int32_t rule, bool clip = false,
             int32_t threads = 1, cov_sparse_format format = kFormat) {
  std::vector<const uint8_t*> pointers;
  std::vector<uint64_t> sizes;
  for (const auto& body : bodies) {
    pointers.push_back(body.data());
    sizes.push_back(body.size());
  }
  const cov_merge_input input{pointers.data(),
                              sizes.data(),
                              weights.data(),
                              static_cast<int32_t>(bodies.size()),
                              rule,
                              clip};
  cov_bytes bytes{};
  Merged out{{},
             cov_sparse_merge(&input, tensors.data(), static_cast<int32_t>(tensors.size()), format,
                              threads, &bytes)};
  if (bytes.data != nullptr) out.bytes.assign(bytes.data, bytes.data + bytes.length);
  cov_bytes_free(&bytes);
  return out;
}

// The merged update as a dense vector: minus what it does to zeros at rate 1.
std::vector<float> dense(const std::vector<uint8_t>& merged,
                         const std::vector<cov_tensor_info>& tensors) {
  std::vector<float> parameters = zeros(total(tensors));
  std::vector<int32_t> skipped(tensors.size());
  int32_t skipped_count = 0;
  CHECK_OK(cov_merged_apply(parameters.data(), parameters.size(), merged.data(), merged.size(),
                            tensors.data(), static_cast<int32_t>(tensors.size()), 1.0f,
                            skipped.data(), &skipped_count));
  for (float& value : parameters) value = -value;
  return parameters;
}

// An update that sends `value` at `at` and, being one of many equal ones, at the lowest indices.
std::vector<uint8_t> update_of(const std::vector<cov_tensor_info>& tensors,
                               const std::vector<float>& values) {
  const auto packed =
      compress(tensors, kFormat, values, zeros(values.size()), zeros(values.size()), 0);
  CHECK_OK(packed.status);
  return packed.body;
}

std::vector<std::vector<uint8_t>> random_updates(const std::vector<cov_tensor_info>& tensors,
                                                 int peers, uint32_t seed) {
  std::vector<std::vector<uint8_t>> bodies;
  for (int r = 0; r < peers; ++r) {
    Random random(seed + static_cast<uint32_t>(r));
    bodies.push_back(update_of(tensors, random.values(total(tensors), 0.01 * (r + 1))));
  }
  return bodies;
}

void rules_differ() {
  const auto tensors = table({64});  // one value kept
  auto first = zeros(64);
  auto second = zeros(64);
  first[3] = 1.0f;
  second[40] = 2.0f;
  const std::vector<std::vector<uint8_t>> bodies{update_of(tensors, first),
                                                 update_of(tensors, second)};
  const auto contributors =
      dense(merge(bodies, {1, 1}, tensors, COV_MERGE_CONTRIBUTORS).bytes, tensors);
  const auto all = dense(merge(bodies, {1, 1}, tensors, COV_MERGE_ALL).bytes, tensors);
  CHECK(contributors[3] == 1.0f && contributors[40] == 2.0f);
  CHECK(all[3] == 0.5f && all[40] == 1.0f);
  // Where all send, the rules agree.
  const std::vector<std::vector<uint8_t>> same{bodies[0], bodies[0]};
  CHECK(dense(merge(same, {1, 1}, tensors, COV_MERGE_CONTRIBUTORS).bytes, tensors) ==
        dense(merge(same, {1, 1}, tensors, COV_MERGE_ALL).bytes, tensors));
}

void weights_count() {
  const auto tensors = table({64});
  auto values = zeros(64);
  values[3] = 1.0f;
  auto opposite = zeros(64);
  opposite[3] = -1.0f;
  const std::vector<std::vector<uint8_t>> bodies{update_of(tensors, values),
                                                 update_of(tensors, opposite)};
  CHECK(dense(merge(bodies, {3, 1}, tensors, COV_MERGE_CONTRIBUTORS).bytes, tensors)[3] == 0.5f);
  CHECK(dense(merge(bodies, {0, 1}, tensors, COV_MERGE_ALL).bytes, tensors)[3] == -1.0f);
  // A coordinate whose values cancel is still part of the update.
  const auto cancelled = merge(bodies, {1, 1}, tensors, COV_MERGE_ALL);
  uint64_t kept = 0;
  CHECK_OK(
      cov_merged_check(cancelled.bytes.data(), cancelled.bytes.size(), tensors.data(), 1, &kept));
  CHECK(kept == 1);
  CHECK_CODE(merge(bodies, {0, 0}, tensors, COV_MERGE_ALL).status, COV_INVALID_ARGUMENT);
  CHECK_CODE(merge(bodies, {-1, 1}, tensors, COV_MERGE_ALL).status, COV_INVALID_ARGUMENT);
  CHECK_CODE(merge(bodies, {NAN, 1}, tensors, COV_MERGE_ALL).status, COV_INVALID_ARGUMENT);
  CHECK_CODE(merge(bodies, {1, 1}, tensors, 2).status, COV_INVALID_ARGUMENT);
  CHECK_CODE(merge({}, {}, tensors, COV_MERGE_ALL).status, COV_INVALID_ARGUMENT);
}

void clipping_holds_down_the_loud() {
  const auto tensors = table({64});
  std::vector<std::vector<uint8_t>> bodies;
  for (const float size : {1.0f, 1.0f, 64.0f}) {
    auto values = zeros(64);
    values[3] = size;
    bodies.push_back(update_of(tensors, values));
  }
  CHECK(dense(merge(bodies, {1, 1, 1}, tensors, COV_MERGE_ALL, false).bytes, tensors)[3] == 22.0f);
  CHECK(dense(merge(bodies, {1, 1, 1}, tensors, COV_MERGE_ALL, true).bytes, tensors)[3] == 1.0f);
  // Of an even number the lower middle is the median, as in the reference.
  bodies.pop_back();
  auto loud = zeros(64);
  loud[3] = 4.0f;
  bodies[1] = update_of(tensors, loud);
  CHECK(dense(merge(bodies, {1, 1}, tensors, COV_MERGE_ALL, true).bytes, tensors)[3] == 1.0f);
}

void order_and_threads() {
  const auto tensors = table({4096 * 130 + 55, 300, 4096 * 3});
  auto bodies = random_updates(tensors, 5, 50);
  const std::vector<float> weights(5, 1.0f);
  for (const bool clip : {false, true}) {
    const auto one = merge(bodies, weights, tensors, COV_MERGE_CONTRIBUTORS, clip);
    CHECK_OK(one.status);
    CHECK(merge(bodies, weights, tensors, COV_MERGE_CONTRIBUTORS, clip, 4).bytes == one.bytes);
  }
  // The order of peers is part of the definition, because fp32 sums depend on it; the coordinates
  // do not.
  const auto forward = merge(bodies, weights, tensors, COV_MERGE_ALL);
  std::reverse(bodies.begin(), bodies.end());
  const auto backward = merge(bodies, weights, tensors, COV_MERGE_ALL);
  CHECK(forward.bytes.size() == backward.bytes.size());
  const auto a = dense(forward.bytes, tensors);
  const auto b = dense(backward.bytes, tensors);
  for (size_t i = 0; i < a.size(); ++i) CHECK(std::fabs(a[i] - b[i]) <= 1e-6f);
}

void merged_equals_direct() {
  const auto tensors = table({4096 * 2 + 7, 128, 61});
  const auto bodies = random_updates(tensors, 1, 90);
  Random random(3);
  const auto start = random.values(total(tensors), 1);
  auto direct = start;
  CHECK_OK(cov_sparse_apply(direct.data(), direct.size(), bodies[0].data(), bodies[0].size(),
                            tensors.data(), 3, kFormat, 0.7f));
  for (const bool clip : {false, true}) {
    const auto merged = merge(bodies, {1}, tensors, COV_MERGE_CONTRIBUTORS, clip);
    auto through = start;
    int32_t skipped[3];
    int32_t count = 0;
    CHECK_OK(cov_merged_apply(through.data(), through.size(), merged.bytes.data(),
                              merged.bytes.size(), tensors.data(), 3, 0.7f, skipped, &count));
    CHECK(count == 0);
    CHECK_SAME(through.data(), direct.data(), direct.size() * sizeof(float));
    CHECK(std::memcmp(through.data(), start.data(), start.size() * sizeof(float)) != 0);
  }
}

void non_finite_tensors_are_skipped() {
  const auto tensors = table({64, 64, 64});
  auto values = zeros(192);
  values[3] = 1.0f;
  values[64 + 9] = 1.0f;
  values[128 + 11] = 1.0f;
  auto merged = merge({update_of(tensors, values)}, {1}, tensors, COV_MERGE_ALL).bytes;
  // The value of the second tensor: header 12, then per tensor count 2, positions 1 (6 low bits) +
  // 1, value 4.
  const float infinity = INFINITY;
  std::memcpy(&merged[12 + 8 + 4], &infinity, 4);
  auto parameters = zeros(192);
  int32_t skipped[3];
  int32_t count = 0;
  CHECK_OK(cov_merged_apply(parameters.data(), 192, merged.data(), merged.size(), tensors.data(), 3,
                            1.0f, skipped, &count));
  CHECK(count == 1 && skipped[0] == 1);
  CHECK(parameters[3] == -1.0f && parameters[64 + 9] == 0.0f && parameters[128 + 11] == -1.0f);
  CHECK_CODE(cov_merged_apply(parameters.data(), 192, merged.data(), merged.size(), tensors.data(),
                              3, NAN, skipped, &count),
             COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_merged_apply(parameters.data(), 100, merged.data(), merged.size(), tensors.data(),
                              3, 1.0f, skipped, &count),
             COV_INVALID_ARGUMENT);
}

// Densities from one value to all of them pass through both codings of positions.
void every_density() {
  const auto tensors = table({4096, 100});
  for (const int32_t keep : {1, 2, 64, 700, 1500, 3000, 4095, 4096}) {
    const cov_sparse_format format{1, keep};
    Random random(static_cast<uint32_t>(keep));
    const auto values = random.values(4196, 1);
    const auto packed = compress(tensors, format, values, zeros(4196), zeros(4196), 0);
    const auto sent = decode(packed.body, tensors, format);
    const auto merged = merge({packed.body}, {1}, tensors, COV_MERGE_ALL, false, 1, format);
    CHECK_OK(merged.status);
    const auto out = dense(merged.bytes, tensors);
    size_t non_zero = 0;
    for (const float value : out) non_zero += value != 0;
    CHECK(non_zero == sent.indices.size());
    for (size_t j = 0; j < sent.indices.size(); ++j) CHECK(out[sent.indices[j]] == sent.values[j]);
  }
}

void names_the_refused_update() {
  const auto tensors = table({4096});
  auto bodies = random_updates(tensors, 3, 7);
  bodies[2][12] = 0xff;
  bodies[2][13] = 0x7f;
  const auto merged = merge(bodies, {1, 1, 1}, tensors, COV_MERGE_ALL);
  CHECK_CODE(merged.status, COV_SPARSE_SCALE_OUT_OF_BOUNDS);
  CHECK(std::string(merged.status.message).find("update 2") != std::string::npos);
  CHECK(merged.bytes.empty());
}

}  // namespace

int main() {
  rules_differ();
  weights_count();
  clipping_holds_down_the_loud();
  order_and_threads();
  merged_equals_direct();
  non_finite_tensors_are_skipped();
  every_density();
  names_the_refused_update();
  TEST_MAIN_END("sparse/merge");
}
