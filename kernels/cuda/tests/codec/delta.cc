// Policy deltas on the device: the CPU's bytes, weights and refusals.
#include "covenant/delta.h"

#include <cstring>

#include "device_memory.h"
#include "sparse/fixtures.h"

namespace {

using namespace covenant_test;

using Weights = std::vector<uint16_t>;
using Bytes = std::vector<uint8_t>;

cov_device* device = nullptr;

// Weights on the device, `skew` of them beyond an aligned address.
class There {
 public:
  explicit There(const Weights& weights, size_t skew = 0) : count_(weights.size()) {
    CHECK_OK(cov_device_allocate(device, 2 * (count_ + skew) + 2, &memory_));
    CHECK_OK(cov_device_upload(device, data(skew), weights.data(), 2 * count_));
    skew_ = skew;
  }
  ~There() { cov_device_free(device, memory_); }
  There(const There&) = delete;
  There& operator=(const There&) = delete;
  uint16_t* data() const { return data(skew_); }
  Weights read() const {
    Weights out(count_);
    CHECK_OK(cov_device_download(device, out.data(), data(), 2 * count_));
    return out;
  }

 private:
  uint16_t* data(size_t skew) const { return static_cast<uint16_t*>(memory_) + skew; }
  size_t count_, skew_ = 0;
  void* memory_ = nullptr;
};

Bytes encode(const Weights& base, const Weights& next) {
  cov_bytes delta{};
  CHECK_OK(cov_delta_encode(base.data(), next.data(), base.size(), 2, &delta));
  Bytes bytes(delta.data, delta.data + delta.length);
  cov_bytes_free(&delta);
  return bytes;
}

void check_same(const Weights& base, const Weights& next, size_t skew) {
  const Bytes expected = encode(base, next);
  const There from(base, skew), to(next, skew), result(base, skew), in_place(base, skew);
  cov_bytes found{};
  CHECK_OK(cov_device_delta_encode(device, from.data(), to.data(), base.size(), &found));
  CHECK(found.length == expected.size());
  if (found.length == expected.size()) CHECK_SAME(found.data, expected.data(), expected.size());
  cov_bytes_free(&found);
  CHECK_OK(cov_device_delta_apply(device, from.data(), base.size(), expected.data(),
                                  expected.size(), result.data()));
  CHECK(result.read() == next);
  CHECK(from.read() == base);
  CHECK_OK(cov_device_delta_apply(device, in_place.data(), base.size(), expected.data(),
                                  expected.size(), in_place.data()));
  CHECK(in_place.read() == next);
  uint8_t own[COV_HASH_BYTES], root[COV_HASH_BYTES];
  CHECK_OK(cov_delta_root(next.data(), next.size(), 1, own));
  CHECK_OK(cov_device_delta_root(device, to.data(), next.size(), root));
  CHECK_SAME(own, root, COV_HASH_BYTES);
}

// Weights near 2^-6, of which one in `every` moves by a few places.
Weights weights_of(Random& random, size_t count) {
  Weights weights(count);
  for (uint16_t& weight : weights)
    weight = static_cast<uint16_t>(random.below(2) << 15 | (114 + random.below(8)) << 7 |
                                   random.below(128));
  return weights;
}
Weights moved(Random& random, Weights weights, uint32_t every, uint32_t far) {
  for (uint16_t& weight : weights)
    if (random.below(every) == 0) weight = static_cast<uint16_t>(weight + random.below(far) - far / 2);
  return weights;
}

void shapes() {
  Random random(1);
  for (const size_t count : {0u, 1u, 15u, 16u, 17u, 511u, 512u, 513u, 5000u, 33000u}) {
    const Weights base = weights_of(random, count);
    check_same(base, base, 0);
    check_same(base, moved(random, base, 50, 5), 0);
    check_same(base, moved(random, base, 3, 200), 1);
    // Nothing in common: the weights as they are.
    Weights noise(count);
    for (uint16_t& weight : noise) weight = static_cast<uint16_t>(random.below(65536));
    check_same(base, noise, count % 2);
    check_same(noise, base, 0);
  }
}

// Several chunks: one changes little, one not at all, one in full, one past the room of a first try.
void chunks() {
  Random random(2);
  const size_t chunk = COV_DELTA_CHUNK;
  const Weights base = weights_of(random, 3 * chunk + 777);
  Weights next = base;
  for (size_t i = 0; i < chunk; i += 1 + random.below(2000)) next[i] ^= 1;
  for (size_t i = 2 * chunk; i < 3 * chunk; ++i)
    next[i] = static_cast<uint16_t>(next[i] ^ random.below(16));
  for (size_t i = 3 * chunk; i < next.size(); ++i) next[i] = static_cast<uint16_t>(random.below(65536));
  check_same(base, next, 0);
}

void refusals() {
  Random random(3);
  const Weights base = weights_of(random, 3000), next = moved(random, base, 8, 9);
  const Bytes good = encode(base, next);
  const There from(base), other(next), result(base);
  const auto code = [&](const There& weights, const Bytes& delta) {
    const cov_status status = cov_device_delta_apply(device, weights.data(), base.size(),
                                                     delta.data(), delta.size(), result.data());
    Weights out(base.size());
    const Weights own = weights.read();
    const cov_status expected = cov_delta_apply(own.data(), own.size(), delta.data(), delta.size(),
                                                1, out.data());
    CHECK(status.code == expected.code);
    CHECK(std::strcmp(status.message, expected.message) == 0);
    return status.code;
  };
  CHECK(code(from, good) == COV_OK);
  CHECK(code(other, good) == COV_DELTA_WRONG_BASE);
  int malformed = 0;
  for (int round = 0; round < 80; ++round) {
    Bytes bad = good;
    const uint32_t at = random.below(static_cast<uint32_t>(bad.size()));
    if (round % 16 == 15)
      bad.resize(at);
    else
      bad[at] ^= static_cast<uint8_t>(1u << random.below(8));
    malformed += code(from, bad) == COV_DELTA_MALFORMED ? 1 : 0;
  }
  CHECK(malformed > 0);
  cov_bytes delta{};
  CHECK_CODE(cov_device_delta_encode(device, nullptr, from.data(), 5, &delta), COV_INVALID_ARGUMENT);
  CHECK(delta.data == nullptr);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer opened = open_device();
  device = opened.get();
  shapes();
  chunks();
  refusals();
  TEST_MAIN_END("cuda codec/delta");
}
