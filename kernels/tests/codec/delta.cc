// Policy deltas: exact on bits for every kind of change, the same bytes for any number of threads,
// small where few weights move, and refused when they do not belong.
#include "covenant/delta.h"

#include <cstring>
#include <vector>

#include "sparse/fixtures.h"

using namespace covenant_test;

namespace {

using Weights = std::vector<uint16_t>;

uint16_t bf16(double value) {
  const auto single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

std::vector<uint8_t> encode(const Weights& base, const Weights& next, int32_t threads = 1) {
  cov_bytes bytes{};
  CHECK_OK(cov_delta_encode(base.data(), next.data(), base.size(), threads, &bytes));
  std::vector<uint8_t> out(bytes.data, bytes.data + bytes.length);
  cov_bytes_free(&bytes);
  return out;
}

cov_status apply(const Weights& base, const std::vector<uint8_t>& delta, Weights& next,
                 int32_t threads = 1) {
  next.assign(base.size(), 0x7fc1);
  return cov_delta_apply(base.data(), base.size(), delta.data(), delta.size(), threads,
                         next.data());
}

void round_trip(const Weights& base, const Weights& next) {
  const auto delta = encode(base, next);
  CHECK(delta.size() <= COV_DELTA_HEADER_BYTES + 4 * (base.size() / COV_DELTA_CHUNK + 1) +
                            2 * base.size());
  Weights out;
  CHECK_OK(apply(base, delta, out));
  CHECK(out == next);
  Weights in_place = base;
  CHECK_OK(cov_delta_apply(in_place.data(), in_place.size(), delta.data(), delta.size(), 2,
                           in_place.data()));
  CHECK(in_place == next);
}

void all_kinds_of_change() {
  Random random(1);
  round_trip({}, {});
  round_trip({0x8000}, {0x0000});
  round_trip({0x3f80}, {0x3f80});
  for (const size_t count : {1u, 15u, 16u, 17u, 4099u}) {
    Weights base(count), next(count);
    for (int kind = 0; kind < 5; ++kind) {
      for (size_t i = 0; i < count; ++i) {
        base[i] = static_cast<uint16_t>(random.below(65536));
        switch (kind) {
          case 0:  // any pattern: NaN, infinities, zeros, all
            next[i] = static_cast<uint16_t>(random.below(65536));
            break;
          case 1:
            next[i] = static_cast<uint16_t>(base[i] ^ (random.below(20) == 0 ? 1u : 0u));
            break;
          case 2:
            next[i] = static_cast<uint16_t>(base[i] ^ (random.below(3) == 0 ? 0x8000u : 0u));
            break;
          case 3:  // from one end of the order to the other
            base[i] = i % 2 ? 0xffff : 0x7fff;
            next[i] = i % 2 ? 0x7fff : 0xffff;
            break;
          default:
            next[i] = base[i];
        }
      }
      round_trip(base, next);
    }
  }
}

void small_steps_are_cheap_and_threads_agree() {
  Random random(2);
  const size_t chunks = unless_sanitized(3, 2);
  const size_t count = COV_DELTA_CHUNK * (chunks - 1) + 7777;
  Weights base(count), next(count);
  uint64_t changed = 0;
  for (size_t i = 0; i < count; ++i) {
    const double weight = 0.02 * random.laplace();
    base[i] = bf16(weight);
    next[i] = bf16(weight + (random.below(2) ? 1e-6 : -1e-6));
    changed += base[i] != next[i];
  }
  const auto delta = encode(base, next);
  cov_delta_info info;
  CHECK_OK(cov_delta_read(delta.data(), delta.size(), &info));
  CHECK(info.changed_count == changed && info.weight_count == count && info.chunk_count == chunks);
  CHECK(static_cast<double>(delta.size()) < 1.3 * static_cast<double>(changed));
  for (const int32_t threads : {0, 2, 3}) {
    if (kSanitized && threads != 3) continue;
    CHECK(encode(base, next, threads) == delta);
    Weights out;
    CHECK_OK(apply(base, delta, out, threads));
    CHECK(out == next);
  }
  // Nothing changed: the header and a table.
  CHECK(encode(base, base).size() == COV_DELTA_HEADER_BYTES + 4 * chunks);
}

void refusals() {
  Random random(3);
  Weights base(5000), next;
  for (auto& weight : base) weight = bf16(random.gaussian());
  next = base;
  for (size_t i = 0; i < next.size(); i += 7) ++next[i];
  const auto delta = encode(base, next);
  Weights out;
  const auto refused = [&](std::vector<uint8_t> bytes, int32_t code) {
    const cov_status status = apply(base, bytes, out);
    CHECK(status.code == code);
    CHECK(status.message[0] != 0);
  };
  auto changed = delta;
  changed[3] = '2';
  refused(changed, COV_DELTA_WRONG_MAGIC);
  changed = delta;
  changed[4] ^= 1;
  refused(changed, COV_DELTA_WRONG_COUNT);
  changed = delta;
  changed[12] ^= 1;
  refused(changed, COV_DELTA_WRONG_RESULT);
  changed = delta;
  changed[20] ^= 1;
  refused(changed, COV_DELTA_WRONG_BASE);
  changed = delta;
  changed[52] ^= 1;
  refused(changed, COV_DELTA_WRONG_RESULT);
  changed = delta;
  changed.push_back(0);
  refused(changed, COV_DELTA_WRONG_SIZE);
  for (size_t length = 0; length < delta.size(); length += 13)
    refused({delta.begin(), delta.begin() + static_cast<std::ptrdiff_t>(length)},
            COV_DELTA_WRONG_SIZE);
  changed = delta;
  changed[COV_DELTA_HEADER_BYTES + 3] |= 0x80;
  refused(changed, COV_DELTA_WRONG_SIZE);
  // Another base is refused before anything is written.
  Weights other = base;
  other[4999] ^= 1;
  Weights untouched(other.size(), 7);
  CHECK_CODE(cov_delta_apply(other.data(), other.size(), delta.data(), delta.size(), 1,
                             untouched.data()),
             COV_DELTA_WRONG_BASE);
  CHECK(untouched == Weights(other.size(), 7));
  // A code with any one byte changed never passes: what it decodes to has another root.
  for (size_t at = COV_DELTA_HEADER_BYTES + 4; at < delta.size(); ++at) {
    changed = delta;
    changed[at] ^= static_cast<uint8_t>(1 + random.below(255));
    const int32_t code = apply(base, changed, out).code;
    CHECK(code == COV_DELTA_MALFORMED || code == COV_DELTA_WRONG_RESULT);
  }
  CHECK(std::strcmp(cov_delta_code_name(COV_DELTA_WRONG_BASE), "DELTA_WRONG_BASE") == 0);
  cov_bytes none{};
  CHECK_CODE(cov_delta_encode(nullptr, base.data(), 5, 1, &none), COV_INVALID_ARGUMENT);
  CHECK(none.data == nullptr);
}

}  // namespace

int main() {
  all_kinds_of_change();
  small_steps_are_cheap_and_threads_agree();
  refusals();
  TEST_MAIN_END("codec/delta");
}
