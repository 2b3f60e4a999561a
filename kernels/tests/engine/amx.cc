// The AMX product on tiles in software: the same source as the amx path, over a model of the tile
// instructions that faults where the CPU would (tile not configured, shapes that do not fit).
#include <array>
#include <cstdint>
#include <vector>

#include "support.h"

namespace {

struct Tile {
  uint8_t bytes[16][64];
};

// One thread's tiles as TILECFG describes them.
struct Tiles {
  bool configured = false;
  int faults = 0;
  uint8_t rows[8] = {};
  uint16_t row_bytes[8] = {};
  Tile tile[8];

  void load_config(const void* memory) {
    const uint8_t* config = static_cast<const uint8_t*>(memory);
    configured = config[0] == 1 && config[1] == 0;
    faults += !configured;
    for (int i = 0; i < 8; ++i) {
      std::memcpy(&row_bytes[i], config + 16 + 2 * i, 2);
      rows[i] = config[48 + i];
      faults += rows[i] > 16 || row_bytes[i] > 64 || (rows[i] == 0) != (row_bytes[i] == 0);
      std::memset(&tile[i], 0, sizeof tile[i]);
    }
  }
  bool usable(int i) {
    const bool ok = configured && rows[i] > 0;
    faults += !ok;
    return ok;
  }
  void zero(int i) {
    if (usable(i)) std::memset(&tile[i], 0, sizeof tile[i]);
  }
  void load(int i, const void* base, int64_t stride) {
    if (!usable(i)) return;
    std::memset(&tile[i], 0, sizeof tile[i]);
    for (int r = 0; r < rows[i]; ++r)
      std::memcpy(tile[i].bytes[r], static_cast<const uint8_t*>(base) + r * stride, row_bytes[i]);
  }
  void store(int i, void* base, int64_t stride) {
    if (!usable(i)) return;
    for (int r = 0; r < rows[i]; ++r)
      std::memcpy(static_cast<uint8_t*>(base) + r * stride, tile[i].bytes[r], row_bytes[i]);
  }
  float half(int i, int row, int at) const {
    uint16_t value;
    std::memcpy(&value, tile[i].bytes[row] + 2 * at, 2);
    const uint32_t bits = static_cast<uint32_t>(value) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
  }
  // Low and high products in sums of their own, added to the tile at the end.
  void dot(int c, int a, int b) {
    if (!usable(c) || !usable(a) || !usable(b)) return;
    faults += rows[a] != rows[c] || row_bytes[b] != row_bytes[c] || row_bytes[a] / 4 != rows[b];
    for (int m = 0; m < rows[c]; ++m)
      for (int n = 0; n < row_bytes[c] / 4; ++n) {
        float low = 0, high = 0, sum;
        for (int k = 0; k < row_bytes[a] / 4; ++k) {
          low = std::fma(half(a, m, 2 * k), half(b, k, 2 * n), low);
          high = std::fma(half(a, m, 2 * k + 1), half(b, k, 2 * n + 1), high);
        }
        std::memcpy(&sum, tile[c].bytes[m] + 4 * n, 4);
        sum += low + high;
        std::memcpy(tile[c].bytes[m] + 4 * n, &sum, 4);
      }
  }
} tiles;

void _tile_loadconfig(const void* config) { tiles.load_config(config); }
void _tile_release() { tiles.configured = false; }
void _tile_zero(int i) { tiles.zero(i); }
void _tile_loadd(int i, const void* base, int64_t stride) { tiles.load(i, base, stride); }
void _tile_stored(int i, void* base, int64_t stride) { tiles.store(i, base, stride); }
void _tile_dpbf16ps(int c, int a, int b) { tiles.dot(c, a, b); }

}  // namespace

#define COV_ISA isa_amx_model
#define COV_SIMD 0
#include "engine/isa/amx.h"

using namespace covenant_test;
using covenant::Bf16;

namespace {

void test(int64_t m, int64_t n, int64_t k, bool with_init) {
  const covenant::KernelTable& table = covenant::kernels();
  Numbers numbers(static_cast<uint32_t>(m * 1000 + n * 10 + k));
  const std::vector<float> x = numbers.floats(m * k), w = numbers.floats(n * k);
  const std::vector<float> init = numbers.floats(m * n);
  const int64_t padded = covenant::bf16_padded(k), row = padded + 32, columns = (n + 31) / 32 * 32;
  std::vector<Bf16> a(static_cast<size_t>(m * row)), b(static_cast<size_t>(columns * padded));
  for (int64_t i = 0; i < m; ++i)
    table.round_bf16(&x[static_cast<size_t>(i * k)], k, padded, &a[static_cast<size_t>(i * row)]);
  table.pack_transposed_bf16(w.data(), n, k, k, b.data());
  // Two guard columns after each row: they must stay untouched.
  std::vector<float> c(static_cast<size_t>(m * (n + 2)), 7.0f), expected = c, alone(c.size());
  const float* const from = with_init ? init.data() : nullptr;
  covenant::isa_amx_model::gemm_bf16(m, n, padded, a.data(), row, b.data(), 32 * padded, from, n,
                                     c.data(), n + 2);
  table.gemm_bf16(m, n, padded, a.data(), row, b.data(), 32 * padded, from, n, expected.data(),
                  n + 2);
  CHECK(tiles.faults == 0 && !tiles.configured);
  for (size_t i = 0; i < c.size(); ++i)
    CHECK_NEAR(c[i], expected[i], 1e-5 * std::sqrt(static_cast<double>(k)));
  for (int64_t i = 0; i < m; ++i)
    CHECK(c[static_cast<size_t>(i * (n + 2) + n)] == 7.0f &&
          c[static_cast<size_t>(i * (n + 2) + n + 1)] == 7.0f);
  // A row alone has the same bits.
  const int64_t i = m - 1;
  covenant::isa_amx_model::gemm_bf16(1, n, padded, &a[static_cast<size_t>(i * row)], row, b.data(),
                                     32 * padded, from == nullptr ? nullptr : from + i * n, n,
                                     alone.data(), n);
  CHECK_SAME(alone.data(), &c[static_cast<size_t>(i * (n + 2))],
             static_cast<size_t>(n) * sizeof(float));
}

}  // namespace

int main() {
  for (const bool init : {true, false})
    for (const auto& s : {std::array<int64_t, 3>{1, 1, 1},
                          {1, 70, 33},
                          {15, 32, 64},
                          {16, 33, 5},
                          {17, 64, 31},
                          {32, 96, 130},
                          {33, 31, 7},
                          {70, 65, 700},
                          {64, 32, 1100}})
      test(s[0], s[1], s[2], init);
  // A second or third row of tiles that is not configured would be a fault: the model tells.
  tiles.zero(2);
  CHECK(tiles.faults == 1);
  TEST_MAIN_END("engine/amx");
}
