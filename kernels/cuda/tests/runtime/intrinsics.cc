// Warp and block operations against loops.
#include "intrinsics.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "device_test.h"

namespace {

constexpr uint32_t kBlocks = 3;
constexpr uint32_t kThreads = 96;

uint32_t value_of(uint32_t thread) { return thread * 2654435761u >> 7; }

uint32_t reversed(uint32_t x) {
  uint32_t out = 0;
  for (int i = 0; i < 32; ++i) out |= (x >> i & 1u) << (31 - i);
  return out;
}

uint32_t bits_of(uint32_t value, uint32_t lane) {
  const uint64_t both = static_cast<uint64_t>(~value) << 32 | value;
  const auto byte = [&](int i) { return static_cast<uint32_t>(both >> (8 * i)) & 0xff; };
  const uint32_t permuted = byte(5) | byte(1) << 8 | byte(7) << 16 | byte(3) << 24;
  return reversed(value) ^ static_cast<uint32_t>(both << lane >> 32) ^ permuted ^
         static_cast<uint32_t>(std::countl_zero(value)) ^
         (value == 0 ? 0u : static_cast<uint32_t>(std::countr_zero(value) + 1)) << 8 ^
         static_cast<uint32_t>(static_cast<uint64_t>(value) * (value << 9) >> 32);
}

ThreadReport expected(uint32_t block, uint32_t t) {
  const uint32_t lane = t % 32;
  const uint32_t first = t - lane;
  const auto at = [&](uint32_t l) { return value_of(first + l + block); };
  ThreadReport r{};
  r.position = block * kThreads + t;
  r.from_left = at(lane < 3 ? lane : lane - 3);
  r.from_right = at(lane % 16 + 5 < 16 ? lane + 5 : lane);
  r.mirrored = at(lane ^ 9);
  r.broadcast = at(7);
  r.least = INT32_MAX;
  for (uint32_t l = 0; l < 32; ++l) {
    r.ballot |= (at(l) & 1) << l;
    r.sum += at(l);
    r.largest = std::max(r.largest, at(l));
    r.least = std::min(r.least, static_cast<int32_t>(at(l)) - (1 << 24));
    r.same |= (at(l) % 5 == at(lane) % 5 ? 1u : 0u) << l;
    if (l < 16 && lane < 16) r.half += at(l);
  }
  constexpr uint32_t weights[4] = {1, 10, 100, 1000};
  for (uint32_t i = 0; i < kThreads; ++i) {
    r.block_sum += value_of(kThreads - 1 - i + block) * weights[i % 4];
    r.agreeing += value_of(i + block) % 3 == 0;
  }
  // Sums of halves of 25-bit integers are exact in any order.
  for (uint32_t l = 0; l <= lane; ++l) r.prefix += at(l) * 0.5;
  r.bits = bits_of(at(lane), lane);
  return r;
}

}  // namespace

int main() {
  if (!covenant_test::have_device()) return covenant_test::kSkipped;
  using namespace covenant::cuda;
  const cov_status status = guard([] {
    Device device(0, 0);
    Buffer<ThreadReport> reports(device, kBlocks * kThreads);
    Buffer<uint32_t> total(device, 1);
    device.fill_zero(total.data(), sizeof(uint32_t));
    launch_report(device.stream(), kBlocks, kThreads, reports.data(), total.data());
    std::vector<ThreadReport> found(kBlocks * kThreads);
    uint32_t sum = 0;
    device.download(found.data(), reports.data(), found.size() * sizeof(ThreadReport));
    device.download(&sum, total.data(), sizeof sum);
    device.finish();
    uint32_t wanted = 0;
    for (uint32_t block = 0; block < kBlocks; ++block) {
      wanted += expected(block, 0).block_sum;
      for (uint32_t t = 0; t < kThreads; ++t) {
        const ThreadReport& f = found[block * kThreads + t];
        const ThreadReport e = expected(block, t);
        CHECK(f.position == e.position);
        CHECK(f.from_left == e.from_left);
        CHECK(f.from_right == e.from_right);
        CHECK(f.mirrored == e.mirrored);
        CHECK(f.broadcast == e.broadcast);
        CHECK(f.ballot == e.ballot);
        CHECK(f.sum == e.sum);
        CHECK(f.largest == e.largest);
        CHECK(f.least == e.least);
        CHECK(f.same == e.same);
        CHECK(f.block_sum == e.block_sum);
        CHECK(f.agreeing == e.agreeing);
        CHECK(f.half == e.half);
        CHECK(f.prefix == e.prefix);
        CHECK(f.bits == e.bits);
      }
    }
    CHECK(sum == wanted);
  });
  CHECK_OK(status);
  TEST_MAIN_END("cuda intrinsics");
}
