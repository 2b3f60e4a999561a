// The packed form of updates: exact both ways, the same bytes on every path and thread count, one
// spelling, and every refusal.
#include <cstring>

#include "covenant/hash.h"
#include "covenant/model.h"
#include "sparse/fixtures.h"

using namespace covenant_test;

namespace {

using Table = std::vector<cov_tensor_info>;

struct Bytes {
  std::vector<uint8_t> bytes;
  cov_status status;
};

Bytes pack(const std::vector<uint8_t>& body, const Table& tensors, cov_sparse_format format,
           int32_t threads = 1) {
  cov_bytes packed{};
  Bytes out{{},
            cov_sparse_pack(body.data(), body.size(), tensors.data(),
                            static_cast<int32_t>(tensors.size()), format, threads, &packed)};
  if (packed.length > 0) out.bytes.assign(packed.data, packed.data + packed.length);
  cov_bytes_free(&packed);
  return out;
}

Bytes unpack(const std::vector<uint8_t>& packed, const Table& tensors, cov_sparse_format format,
             int32_t threads = 1) {
  uint64_t bytes = 0;
  const auto count = static_cast<int32_t>(tensors.size());
  CHECK_OK(cov_sparse_size(tensors.data(), count, format, &bytes, nullptr));
  Bytes out{std::vector<uint8_t>(bytes, 0xaa), {}};
  out.status = cov_sparse_unpack(packed.data(), packed.size(), tensors.data(), count, format,
                                 threads, out.bytes.data(), bytes);
  return out;
}

// The values of `kind` 0 are smooth, of 1 mostly zero, of 2 of any scale, of 3 all equal.
std::vector<uint8_t> body_of(const Table& tensors, cov_sparse_format format, uint32_t seed,
                             uint32_t kind = 0) {
  Random random(seed);
  std::vector<float> values(total(tensors));
  for (size_t i = 0; i < values.size(); ++i) {
    const double value = random.laplace();
    const uint32_t choice = random.below(300);
    values[i] = static_cast<float>(kind == 0   ? value
                                   : kind == 1 ? (choice == 0 ? value : 0)
                                   : kind == 2 ? value * std::exp2(i / 4096 % 40 * 3.0 - 60)
                                               : 0.5);
  }
  return compress(tensors, format, values, zeros(values.size()), zeros(values.size()), 0).body;
}

const std::vector<cov_sparse_format> kFormats = {{2, 64}, {1, 64}, {2, 1}, {1, 700}, {2, 4096}};

void round_trips() {
  const std::vector<Table> tables = {table({}),          table({0}),
                                     table({1}),         table({0, 4096 + 200, 100, 0, 64, 7}),
                                     table({4096 * 3}),  table({63, 64, 65, 4095, 4097, 0}),
                                     table({1031, 2, 0})};
  for (const Table& tensors : tables) {
    for (const cov_sparse_format format : kFormats) {
      for (const uint32_t kind : {0u, 1u, 2u, 3u}) {
        const auto body = body_of(tensors, format, kind + 1, kind);
        const Bytes packed = pack(body, tensors, format);
        CHECK_OK(packed.status);
        const Bytes again = unpack(packed.bytes, tensors, format);
        CHECK_OK(again.status);
        CHECK(again.bytes == body);
      }
    }
  }
}

// More than one block, cut inside tensors and between them.
void threads_and_paths_agree() {
  const Table tensors = table({4096 * 511, 4096 * 2 + 5, 0, 4096 * 520 + 17, 64});
  for (const cov_sparse_format format : {kFormats[0], kFormats[1]}) {
    const auto body = body_of(tensors, format, 5);
    const Bytes packed = pack(body, tensors, format);
    CHECK_OK(packed.status);
    CHECK(packed.bytes.size() < body.size() * (format.mode == 2 ? 96u : 95u) / 100);
    for (const char* path : {"portable", "avx2", "avx512"}) {
      if (cov_set_cpu_path(path).code != COV_OK) continue;
      for (const int32_t threads : {1, 3, 0}) {
        CHECK(pack(body, tensors, format, threads).bytes == packed.bytes);
        const Bytes again = unpack(packed.bytes, tensors, format, threads);
        CHECK_OK(again.status);
        CHECK(again.bytes == body);
      }
    }
    CHECK_OK(cov_set_cpu_path(nullptr));
  }
}

// Independent data costs what its entropy is: positions log2 C(4096, 64) = 471.3 bits, signs 64.
void close_to_the_entropy() {
  const Table tensors = table({4096 * 1024});
  const auto body = body_of(tensors, {1, 64}, 9);
  const Bytes packed = pack(body, tensors, {1, 64});
  CHECK_OK(packed.status);
  const double bits = 8 * static_cast<double>(packed.bytes.size()) / 1024;
  CHECK(bits > 471.3 + 64);
  CHECK(bits < (471.3 + 64) * 1.02 + 8);
}

void header_and_sizes_are_checked() {
  const Table tensors = table({4096, 100});
  const cov_sparse_format format{2, 64};
  const auto body = body_of(tensors, format, 1);
  const auto good = pack(body, tensors, format).bytes;
  const auto with = [&](size_t at, uint8_t value) {
    auto bytes = good;
    bytes[at] = value;
    return unpack(bytes, tensors, format).status.code;
  };
  CHECK(with(2, 'S') == COV_SPARSE_WRONG_MAGIC);
  CHECK(with(3, '2') == COV_SPARSE_WRONG_MAGIC);
  CHECK(with(4, 1) == COV_SPARSE_WRONG_MODE);
  CHECK(with(5, 2) == COV_SPARSE_WRONG_MODE);
  CHECK(with(6, 65) == COV_SPARSE_WRONG_KEEP);
  CHECK(with(8, 3) == COV_SPARSE_WRONG_TENSOR_COUNT);
  CHECK(with(12, static_cast<uint8_t>(good[12] + 1)) == COV_SPARSE_WRONG_SIZE);
  CHECK(with(15, 255) == COV_SPARSE_WRONG_SIZE);
  CHECK(with(16, 1) == COV_SPARSE_NOT_CANONICAL);  // nothing is carried out of the first byte
  for (size_t length = 0; length < good.size(); ++length) {
    const std::vector<uint8_t> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length));
    CHECK(unpack(cut, tensors, format).status.code == COV_SPARSE_WRONG_SIZE);
  }
  auto longer = good;
  longer.push_back(0);
  CHECK(unpack(longer, tensors, format).status.code == COV_SPARSE_WRONG_SIZE);
  // A body is not its packed form, nor the other way around, and a wrong one is not packed.
  CHECK(unpack(body, tensors, format).status.code == COV_SPARSE_WRONG_MAGIC);
  CHECK(pack(good, tensors, format).status.code == COV_SPARSE_WRONG_MAGIC);
  auto wrong = body;
  wrong[16] = 254;
  CHECK(pack(wrong, tensors, format).status.code == COV_SPARSE_NOT_CANONICAL);
  uint8_t room[4];
  CHECK_CODE(cov_sparse_unpack(good.data(), good.size(), tensors.data(), 2, format, 1, room, 4),
             COV_INVALID_ARGUMENT);
  CHECK_CODE(cov_sparse_unpack(good.data(), good.size(), tensors.data(), 2, {3, 64}, 1, room, 4),
             COV_INVALID_ARGUMENT);
}

// The length of the only block's code set to what is there.
void fit_table(std::vector<uint8_t>& packed) {
  const auto length = static_cast<uint32_t>(packed.size() - 16);
  std::memcpy(&packed[12], &length, 4);
}

void damage_is_refused_or_another_update() {
  const Table tensors = table({4096 + 200, 100, 0, 64});
  Random random(31);
  int accepted = 0, refused = 0;
  for (const cov_sparse_format format : {kFormats[0], kFormats[1], kFormats[3]}) {
    const auto good = pack(body_of(tensors, format, 3), tensors, format).bytes;
    for (int round = 0; round < 6000; ++round) {
      auto bytes = good;
      const auto size = static_cast<uint32_t>(bytes.size());
      // Changes near the end spoil little of what follows, so some of them are accepted.
      const uint32_t last = round % 2 == 0 ? size : std::min(size - 16, 12u);
      for (uint32_t c = 0; c <= random.below(2); ++c)
        bytes[size - 1 - random.below(last)] = static_cast<uint8_t>(random.below(256));
      if (round % 3 == 0 && bytes.size() > 20) {
        bytes.resize(bytes.size() - random.below(4));
        fit_table(bytes);
      }
      const Bytes body = unpack(bytes, tensors, format);
      refused += body.status.code != COV_OK;
      if (body.status.code != COV_OK) continue;
      ++accepted;
      const Bytes again = pack(body.bytes, tensors, format);
      CHECK_OK(again.status);
      CHECK(again.bytes == bytes);
    }
  }
  CHECK(refused > 10000);
  CHECK(accepted > 20);
}

// The bytes are part of the protocol.
void bytes_stay_the_same() {
  const Table tensors = table({4096 * 2 + 200, 100, 0, 64});
  const char* const expected[] = {
      "d9808569131e5327bb76758a09c2e894d0721e39dd97ea12749e3033da2eeeeb",
      "004ea4ddd5ed510c19bcd41902b0e6695670c56fff0b68ccff777659d4b28e03",
  };
  for (const size_t i : {0u, 1u}) {
    const auto packed = pack(body_of(tensors, kFormats[i], 11), tensors, kFormats[i]).bytes;
    uint8_t digest[COV_HASH_BYTES];
    cov_sha256(packed.data(), packed.size(), digest);
    char text[2 * COV_HASH_BYTES + 1];
    for (size_t b = 0; b < COV_HASH_BYTES; ++b) std::snprintf(text + 2 * b, 3, "%02x", digest[b]);
    CHECK(std::strcmp(text, expected[i]) == 0);
    if (std::strcmp(text, expected[i]) != 0) std::fprintf(stderr, "  packed bytes: %s\n", text);
  }
}

}  // namespace

int main() {
  round_trips();
  threads_and_paths_agree();
  close_to_the_entropy();
  header_and_sizes_are_checked();
  damage_is_refused_or_another_update();
  bytes_stay_the_same();
  TEST_MAIN_END("sparse/packed");
}
