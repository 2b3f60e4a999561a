// libFuzzer target: what a validator does with the update of a stranger. A sound body and one from
// the fuzzer are merged and applied on every CPU path, in one call and in two: all refuse alike and
// change nothing, or give the same bits.
#include <cstdlib>
#include <cstring>

#include "covenant/model.h"
#include "fuzz/tables.h"
#include "sparse/body.h"

namespace {

using Bytes = std::vector<uint8_t>;
using Values = std::vector<float>;

struct Setting {
  std::vector<cov_tensor_info> tensors = covenant_fuzz::tables();
  cov_sparse_format format = {};
  Bytes sound;
  Values start;
  int32_t count() const { return static_cast<int32_t>(tensors.size()); }

  explicit Setting(cov_sparse_format wanted) : format(wanted) {
    uint64_t bytes = 0;
    if (cov_sparse_size(tensors.data(), count(), format, &bytes, nullptr).code != COV_OK)
      std::abort();
    sound.resize(bytes);
    start.resize(tensors.back().offset + tensors.back().length);
    uint32_t x = 7;
    for (float& value : start) {
      x = x * 1664525 + 1013904223;
      value = static_cast<float>(static_cast<int32_t>(x)) * 0x1p-31f;
    }
    const Values moved(start.size());
    Values feedback(start.size());
    const cov_sparse_source source = {start.data(), moved.data(), feedback.data(), start.size(), 0};
    if (cov_sparse_compress(&source, tensors.data(), count(), format, 1, sound.data(), bytes)
            .code != COV_OK)
      std::abort();
  }
};

struct Outcome {
  int32_t code = 0, skipped = -1;
  Values parameters;
  bool operator==(const Outcome& other) const {
    return code == other.code && skipped == other.skipped &&
           std::memcmp(parameters.data(), other.parameters.data(), parameters.size() * 4) == 0;
  }
};

Outcome in_two(const Setting& s, const cov_merge_input& input) {
  Outcome out{0, -1, s.start};
  std::vector<int32_t> skipped(s.tensors.size());
  cov_bytes merged{};
  out.code = cov_sparse_merge(&input, s.tensors.data(), s.count(), s.format, 1, &merged).code;
  if (out.code != COV_OK) return out;
  if (cov_merged_apply(out.parameters.data(), out.parameters.size(), merged.data, merged.length,
                       s.tensors.data(), s.count(), 0.5f, skipped.data(), &out.skipped)
          .code != COV_OK)
    std::abort();
  cov_bytes_free(&merged);
  return out;
}

Outcome in_one(const Setting& s, const cov_merge_input& input) {
  Outcome out{0, -1, s.start};
  std::vector<int32_t> skipped(s.tensors.size());
  int32_t count = -1;
  out.code = cov_sparse_update(out.parameters.data(), out.parameters.size(), &input,
                               s.tensors.data(), s.count(), s.format, 0.5f, 1, skipped.data(),
                               &count)
                 .code;
  if (out.code == COV_OK) out.skipped = count;
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  static const Setting settings[] = {Setting({2, 64}), Setting({1, 64}), Setting({2, 700})};
  const Setting& s = settings[data[0] % 3];
  // The sound body, with the fuzzer's bytes over it from a place that it chooses.
  Bytes strange = s.sound;
  const size_t from = data[0] & 64 ? 12 : 12 + data[1] * 4u % (strange.size() - 12);
  std::memcpy(&strange[from], data + 2, std::min(size - 2, strange.size() - from));
  const uint8_t* const bodies[] = {s.sound.data(), strange.data()};
  const uint64_t sizes[] = {s.sound.size(), strange.size()};
  const float weights[] = {data[0] & 8 ? 0.75f : 1.0f, 1.0f};
  const cov_merge_input input = {bodies,          sizes, weights, 2, data[0] >> 4 & 1,
                                 data[0] >> 5 & 1};
  if (cov_set_cpu_path("portable").code != COV_OK) std::abort();
  const Outcome expected = in_two(s, input);
  if (expected.code != COV_OK && expected.parameters != s.start) std::abort();
  for (const char* path : {"portable", "avx2", "avx512"}) {
    if (cov_set_cpu_path(path).code != COV_OK) continue;
    if (!(in_one(s, input) == expected)) std::abort();
    if (!(in_two(s, input) == expected)) std::abort();
  }
  return 0;
}
