#include "sparse/gather.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "covenant/sparse.h"

namespace covenant::sparse {
namespace {

// Magnitude order of floats is the integer order of their bits without the sign.
uint32_t key_of(float value) { return std::bit_cast<uint32_t>(value) & 0x7fffffff; }

constexpr int kBinShift = 20;  // exponent and three bits of mantissa
constexpr uint32_t kBins = 1u << (31 - kBinShift);

void select_largest(const float* values, int32_t n, int32_t kept, uint16_t* indices) {
  // The bin that holds the kept-th magnitude, then everything from it up: a little more than `kept`
  // candidates.
  uint16_t histogram[kBins] = {};
  for (int32_t i = 0; i < n; ++i) ++histogram[key_of(values[i]) >> kBinShift];
  uint32_t bin = kBins - 1;
  int32_t above = 0;
  while (above + histogram[bin] < kept) above += histogram[bin--];
  const uint32_t floor_key = bin << kBinShift;

  // Every index is written to the end of the list; only candidates move the end.
  uint16_t candidates[COV_SPARSE_CHUNK + 1];
  int32_t candidate_count = 0;
  for (int32_t i = 0; i < n; ++i) {
    candidates[candidate_count] = static_cast<uint16_t>(i);
    candidate_count += key_of(values[i]) >= floor_key;
  }

  if (candidate_count < kept) __builtin_unreachable();
  uint32_t keys[COV_SPARSE_CHUNK];
  keys[0] = 0;
  for (int32_t c = 0; c < candidate_count; ++c) keys[c] = key_of(values[candidates[c]]);
  std::nth_element(keys, keys + (kept - 1), keys + candidate_count, std::greater<uint32_t>());
  const uint32_t threshold = keys[kept - 1];
  int32_t ties = kept;
  for (int32_t c = 0; c < kept; ++c) ties -= keys[c] > threshold;

  int32_t out = 0;
  for (int32_t c = 0; c < candidate_count; ++c) {
    const uint32_t key = key_of(values[candidates[c]]);
    if (key < threshold) continue;
    if (key == threshold && ties-- <= 0) continue;
    indices[out++] = candidates[c];
  }
}

}  // namespace

uint32_t gather_portable(const float* base, const float* current, float beta, float* e, int32_t n,
                         int32_t kept, uint32_t*, uint16_t* indices) {
  uint32_t largest = 0;
  for (int32_t i = 0; i < n; ++i) {
    const float a = __builtin_fmaf(beta, e[i], base[i] - current[i]);
    e[i] = a;
    largest = std::max(largest, key_of(a));
  }
  if (largest >= 0x7f800000) return largest;
  if (kept >= n) {
    for (int32_t i = 0; i < n; ++i) indices[i] = static_cast<uint16_t>(i);
    return largest;
  }
  select_largest(e, n, kept, indices);
  return largest;
}

}  // namespace covenant::sparse
