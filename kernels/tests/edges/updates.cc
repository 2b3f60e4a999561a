// Updates, hashes and deltas at the edges: no tensors, empty ones, one value, prime lengths, one and
// two dimensions, more kept values than there are, NaN and infinity everywhere, formats that are
// none. Every public function takes part, on every CPU path; results hold what they promise.
#include <algorithm>
#include <cstring>

#include "covenant/activation.h"
#include "covenant/delta.h"
#include "covenant/hash.h"
#include "covenant/model.h"
#include "sparse/fixtures.h"

using namespace covenant_test;

namespace {

using Tensors = std::vector<cov_tensor_info>;
using Bytes = std::vector<uint8_t>;

int32_t count_of(const Tensors& tensors) { return static_cast<int32_t>(tensors.size()); }

std::vector<Tensors> tables() {
  std::vector<Tensors> all = {table({}),           table({0}),    table({1}),
                              table({2, 3, 5, 7}), table({4096}), table({4097}),
                              table({8191, 0, 1}), table({0, 0, 4095, 0, 63, 64, 65})};
  Tensors matrices = table({11 * 13, 13, 61 * 89});
  matrices[0].rank = matrices[2].rank = 2;
  matrices[0].dims[0] = 11, matrices[0].dims[1] = 13;
  matrices[2].dims[0] = 61, matrices[2].dims[1] = 89;
  all.push_back(matrices);
  // A gap between tensors that belongs to none.
  Tensors apart = table({100, 50});
  apart[1].offset += 7;
  all.push_back(apart);
  return all;
}

struct Round {
  std::vector<Bytes> bodies;
  Bytes merged;
  std::vector<float> parameters, stepped;
  uint8_t root[COV_HASH_BYTES];
};

// Values that decode to at most what was there, all of them when everything may be kept.
void check_decoded(const Tensors& tensors, cov_sparse_format format, const Bytes& body,
                   const std::vector<float>& values) {
  const Decoded sent = decode(body, tensors, format);
  CHECK_OK(sent.status);
  uint64_t most = 0, inside = 0, bytes = 0;
  CHECK_OK(cov_sparse_size(tensors.data(), count_of(tensors), format, &bytes, &most));
  CHECK(bytes == body.size() && sent.indices.size() <= most);
  for (const cov_tensor_info& tensor : tensors) inside += tensor.length;
  CHECK(most <= inside);
  if (format.keep_per_chunk == COV_SPARSE_KEEP_MAX) CHECK(sent.indices.size() == inside);
  auto applied = values;
  CHECK_OK(cov_sparse_apply(applied.data(), applied.size(), body.data(), body.size(),
                            tensors.data(), count_of(tensors), format, 1.0f));
  for (size_t i = 0; i < sent.indices.size(); ++i)
    CHECK(applied[sent.indices[i]] == values[sent.indices[i]] - sent.values[i]);
}

Round round_of(const Tensors& tensors, cov_sparse_format format, int32_t threads) {
  Round out;
  Random random(5);
  out.parameters = out.stepped = random.values(total(tensors), 1);
  const int32_t count = count_of(tensors);
  for (int peer = 0; peer < 2; ++peer) {
    const auto current = random.values(out.parameters.size(), 1);
    const auto own = compress(tensors, format, out.parameters, current, zeros(current.size()), 0.9f,
                              threads);
    CHECK_OK(own.status);
    check_decoded(tensors, format, own.body, out.parameters);
    out.bodies.push_back(own.body);
  }
  const uint8_t* bodies[] = {out.bodies[0].data(), out.bodies[1].data()};
  const uint64_t sizes[] = {out.bodies[0].size(), out.bodies[1].size()};
  const float weights[] = {1.0f, 0.25f};
  const cov_merge_input input = {bodies, sizes, weights, 2, COV_MERGE_CONTRIBUTORS, 1};
  cov_bytes merged = {};
  CHECK_OK(cov_sparse_merge(&input, tensors.data(), count, format, threads, &merged));
  out.merged.assign(merged.data, merged.data + merged.length);
  cov_bytes_free(&merged);
  uint64_t kept = 0;
  CHECK_OK(cov_merged_check(out.merged.data(), out.merged.size(), tensors.data(), count, &kept));
  std::vector<int32_t> skipped(tensors.size() + 1);
  int32_t skipped_count = -1;
  auto applied = out.parameters;
  CHECK_OK(cov_merged_apply(applied.data(), applied.size(), out.merged.data(), out.merged.size(),
                            tensors.data(), count, 0.5f, skipped.data(), &skipped_count));
  CHECK(skipped_count == 0);
  CHECK_OK(cov_sparse_update(out.stepped.data(), out.stepped.size(), &input, tensors.data(), count,
                             format, 0.5f, threads, skipped.data(), &skipped_count));
  CHECK(skipped_count == 0 && applied == out.stepped);
  CHECK_OK(cov_state_root(applied.data(), applied.size(), tensors.data(), count, threads,
                          out.root));
  return out;
}

void shapes() {
  for (const Tensors& tensors : tables())
    for (const int32_t keep : {1, 61, 64, COV_SPARSE_KEEP_MAX})
      for (const int32_t mode : {1, 2}) {
        CHECK_OK(cov_set_cpu_path("portable"));
        const Round first = round_of(tensors, {mode, keep}, 1);
        for (const char* path : {"portable", "avx2", "avx512"}) {
          if (cov_set_cpu_path(path).code != COV_OK) continue;
          const Round other = round_of(tensors, {mode, keep}, 3);
          CHECK(other.bodies == first.bodies && other.merged == first.merged);
          CHECK(other.stepped == first.stepped);
          CHECK_SAME(other.root, first.root, sizeof first.root);
        }
        CHECK_OK(cov_set_cpu_path(nullptr));
      }
}

// NaN and infinity: refused where they would be sent, left alone where they are only changed.
void not_finite() {
  const Tensors tensors = table({4099, 7});
  const cov_sparse_format format = {2, 64};
  const size_t size = total(tensors);
  Random random(6);
  const auto good = random.values(size, 1), other = random.values(size, 1);
  const Bytes body = compress(tensors, format, good, other, zeros(size)).body;
  for (const float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
    for (const size_t at : {size_t{0}, size_t{4095}, size_t{4098}, size - 1}) {
      auto broken = good;
      broken[at] = bad;
      CHECK_CODE(compress(tensors, format, broken, other, zeros(size)).status,
                 COV_SPARSE_NON_FINITE);
      CHECK_CODE(compress(tensors, format, other, broken, zeros(size)).status,
                 COV_SPARSE_NON_FINITE);
      CHECK_CODE(compress(tensors, format, good, other, broken).status, COV_SPARSE_NON_FINITE);
      CHECK_OK(cov_sparse_apply(broken.data(), size, body.data(), body.size(), tensors.data(), 2,
                                format, 1.0f));
      CHECK(!std::isfinite(broken[at]));
      uint8_t root[COV_HASH_BYTES], twice[COV_HASH_BYTES];
      CHECK_OK(cov_state_root(broken.data(), size, tensors.data(), 2, 1, root));
      CHECK_OK(cov_state_root(broken.data(), size, tensors.data(), 2, 2, twice));
      CHECK_SAME(root, twice, sizeof root);
    }
  }
}

void formats_that_are_none() {
  const Tensors tensors = table({100});
  uint64_t bytes = 0;
  uint8_t buffer[64] = {};
  for (const cov_sparse_format format : {cov_sparse_format{0, 64}, cov_sparse_format{3, 64},
                                         cov_sparse_format{2, 0}, cov_sparse_format{2, 4097},
                                         cov_sparse_format{-1, -1}}) {
    float values[100] = {};
    CHECK_CODE(cov_sparse_size(tensors.data(), 1, format, &bytes, nullptr), COV_INVALID_ARGUMENT);
    CHECK(cov_sparse_check(buffer, 64, tensors.data(), 1, format, nullptr).code != COV_OK);
    CHECK(cov_sparse_apply(values, 100, buffer, 64, tensors.data(), 1, format, 1).code != COV_OK);
    const cov_sparse_source source = {values, values, values, 100, 0.5f};
    CHECK(cov_sparse_compress(&source, tensors.data(), 1, format, 1, buffer, 64).code != COV_OK);
  }
  // Tables whose tensors overlap, go backwards or end beyond what an index can say.
  Tensors overlap = table({100, 100});
  overlap[1].offset = 99;
  Tensors backwards = table({100, 100});
  std::swap(backwards[0], backwards[1]);
  Tensors vast = table({1ull << 32});
  for (const Tensors& bad : {overlap, backwards, vast})
    CHECK_CODE(cov_sparse_size(bad.data(), count_of(bad), {2, 64}, &bytes, nullptr),
               COV_INVALID_ARGUMENT);
}

// What a call cannot do without may be missing: an error, not a fault.
void missing() {
  const Tensors tensors = table({100});
  const cov_tensor_info* const t = tensors.data();
  constexpr cov_sparse_format format = {2, 64};
  std::vector<float> values(100), base(100, 1.0f), error(100);
  float* const v = values.data();
  Bytes body(16384);
  uint64_t bytes = 0, kept = 0;
  CHECK_OK(cov_sparse_size(t, 1, format, &bytes, nullptr));
  const cov_sparse_source source = {base.data(), v, error.data(), 100, 0.5f};
  CHECK_OK(cov_sparse_compress(&source, t, 1, format, 1, body.data(), bytes));
  const uint8_t* const bodies[] = {body.data(), nullptr};
  const uint64_t sizes[] = {bytes, bytes};
  const float weights[] = {1, 1};
  const cov_merge_input two = {bodies, sizes, weights, 2, COV_MERGE_ALL, 0};
  const cov_merge_input none = {nullptr, nullptr, nullptr, 1, COV_MERGE_ALL, 0};
  cov_bytes out = {};
  int32_t skipped = 0, count = 0;
  uint8_t root[COV_HASH_BYTES];
  const cov_projection cut = {v, nullptr, 10, 10, 0};
  cov_delta_info info;
  const cov_status all[] = {
      cov_sparse_compress(nullptr, t, 1, format, 1, body.data(), bytes),
      cov_sparse_compress(&source, t, 1, format, 1, nullptr, bytes),
      cov_sparse_check(nullptr, bytes, t, 1, format, &kept),
      cov_sparse_decode(body.data(), bytes, t, 1, format, nullptr, nullptr, 100, &kept),
      cov_sparse_decode(body.data(), bytes, t, 1, format, nullptr, nullptr, 100, nullptr),
      cov_sparse_apply(nullptr, 100, body.data(), bytes, t, 1, format, 1),
      cov_sparse_pack(body.data(), bytes, t, 1, format, 1, nullptr),
      cov_sparse_unpack(body.data(), bytes, t, 1, format, 1, nullptr, bytes),
      cov_sparse_merge(nullptr, t, 1, format, 1, &out),
      cov_sparse_merge(&two, t, 1, format, 1, &out),
      cov_sparse_merge(&none, t, 1, format, 1, &out),
      cov_sparse_merge(&two, t, 1, format, 1, nullptr),
      cov_sparse_update(v, 100, nullptr, t, 1, format, 1, 1, &skipped, &count),
      cov_sparse_update(nullptr, 100, &two, t, 1, format, 1, 1, &skipped, &count),
      cov_merged_check(nullptr, 100, t, 1, &kept),
      cov_merged_apply(v, 100, nullptr, 100, t, 1, 1, &skipped, &count),
      cov_merged_apply(v, 100, body.data(), bytes, t, 1, 1, nullptr, nullptr),
      cov_state_root(nullptr, 100, t, 1, 1, root),
      cov_state_root(v, 100, nullptr, 1, 1, root),
      cov_tensor_table_root(nullptr, 1, root),
      cov_activation_size(COV_ACTIVATION_BF16, 1, 4, nullptr),
      cov_activation_encode(COV_ACTIVATION_BF16, nullptr, 1, 4, 1, body.data(), 24),
      cov_activation_encode(COV_ACTIVATION_BF16, v, 1, 4, 1, nullptr, 24),
      cov_activation_decode(COV_ACTIVATION_BF16, nullptr, 24, 1, 4, 1, v),
      cov_projection_encode(nullptr, v, nullptr, 1, 1, v),
      cov_projection_decode(&cut, nullptr, nullptr, 1, 1, v),
      cov_projection_decode_backward(&cut, v, v, nullptr, 1, 1, nullptr, nullptr, nullptr),
      cov_projection_encode_backward(&cut, v, nullptr, nullptr, 1, 1, v, nullptr, nullptr),
      cov_projection_step(v, nullptr, v, 10, 10, 1, 0),
      cov_delta_root(nullptr, 5, 1, root),
      cov_delta_encode(nullptr, nullptr, 5, 1, &out),
      cov_delta_encode(nullptr, nullptr, 0, 1, nullptr),
      cov_delta_read(nullptr, 100, &info),
      cov_delta_apply(nullptr, 5, body.data(), 100, 1, nullptr),
      cov_delta_apply_chunk(nullptr, 5, 0, nullptr, 0, 0, nullptr, &bytes),
  };
  for (const cov_status& status : all)
    CHECK(status.code != COV_OK && std::strstr(status.message, "must be given") != nullptr);
}

void deltas() {
  for (const size_t count : {0u, 1u, 2u, 13u, 8191u}) {
    std::vector<uint16_t> base(count), next(count), out(count);
    for (size_t i = 0; i < count; ++i) {
      base[i] = static_cast<uint16_t>(i * 40503);
      next[i] = static_cast<uint16_t>(i % 3 == 0 ? 0x7fc0 + i % 64 : base[i]);  // NaN among them
    }
    cov_bytes delta = {};
    const cov_status status = cov_delta_encode(base.data(), next.data(), count, 3, &delta);
    CHECK(status.code == COV_OK || (count == 0 && status.code == COV_INVALID_ARGUMENT));
    if (status.code != COV_OK) continue;
    cov_delta_info info;
    CHECK_OK(cov_delta_read(delta.data, delta.length, &info));
    CHECK(info.weight_count == count);
    CHECK_OK(cov_delta_apply(base.data(), count, delta.data, delta.length, 3, out.data()));
    CHECK(out == next);
    // In place.
    CHECK_OK(cov_delta_apply(base.data(), count, delta.data, delta.length, 1, base.data()));
    CHECK(base == next);
    for (uint64_t length = 0; length < std::min<uint64_t>(delta.length, 200); ++length)
      CHECK(cov_delta_apply(base.data(), count, delta.data, length, 1, out.data()).code != COV_OK);
    cov_bytes_free(&delta);
  }
  cov_bytes nothing = {};
  cov_bytes_free(&nothing);
  cov_bytes_free(nullptr);
}

}  // namespace

int main() {
  shapes();
  not_finite();
  formats_that_are_none();
  missing();
  deltas();
  TEST_MAIN_END("edges/updates");
}
