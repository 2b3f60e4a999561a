// The calls of cuBLASLt that the engine makes, over emulated streams and memory: matrices are columns `ld`
// apart, and every argument is checked. COVENANT_FAKE_CUBLASLT_VERSION says which version it claims to be.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "emulation/memory.h"
#include "emulation/streams.h"

namespace {

constexpr int kInvalid = 7;  // CUBLAS_STATUS_INVALID_VALUE
int products = 0;

struct Desc {
  int32_t compute, scale, left = 0, right = 0;
};
struct Layout {
  int32_t type;
  uint64_t rows, columns;
  int64_t ld;
};
struct Preference {
  uint64_t workspace = 0;
};
struct Heuristic {
  uint64_t algorithm[8];
  size_t workspace;
  int32_t state;
  float waves;
  int32_t reserved[4];
};

float value(const void* data, const Layout& l, uint64_t row, uint64_t column) {
  const uint64_t at = row + column * static_cast<uint64_t>(l.ld);
  if (l.type == 0) return static_cast<const float*>(data)[at];
  return std::bit_cast<float>(static_cast<uint32_t>(static_cast<const uint16_t*>(data)[at]) << 16);
}

void put(void* data, const Layout& l, uint64_t row, uint64_t column, float x) {
  const uint64_t at = row + column * static_cast<uint64_t>(l.ld);
  if (l.type == 0) {
    static_cast<float*>(data)[at] = x;
    return;
  }
  const auto bits = std::bit_cast<uint32_t>(x);
  static_cast<uint16_t*>(data)[at] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Sizes of op(A) op(B) = D, in order m, n, k; false when they do not fit.
bool fits(const Desc& d, const Layout& a, const Layout& b, const Layout& c, uint64_t (&size)[3]) {
  size[0] = d.left != 0 ? a.columns : a.rows;
  size[1] = d.right != 0 ? b.rows : b.columns;
  size[2] = d.left != 0 ? a.rows : a.columns;
  return (d.right != 0 ? b.columns : b.rows) == size[2] && c.rows == size[0] && c.columns == size[1] &&
         d.compute == 68 && d.scale == 0 && a.type == 14 && b.type == 14;
}

struct Product {
  Desc desc;
  Layout a, b, c, d;
  float alpha, beta;
};

void multiply(const Product& p, const void* a, const void* b, const void* c, void* d) {
  const uint64_t terms = p.desc.left != 0 ? p.a.rows : p.a.columns;
  for (uint64_t i = 0; i < p.d.rows; ++i) {
    for (uint64_t j = 0; j < p.d.columns; ++j) {
      float sum = 0.0f;
      for (uint64_t k = 0; k < terms; ++k)
        sum = std::fma(p.desc.left != 0 ? value(a, p.a, k, i) : value(a, p.a, i, k),
                       p.desc.right != 0 ? value(b, p.b, j, k) : value(b, p.b, k, j), sum);
      put(d, p.d, i, j, p.alpha * sum + (p.beta == 0.0f ? 0.0f : p.beta * value(c, p.c, i, j)));
    }
  }
}

}  // namespace

extern "C" {
int covenant_fake_products() { return products; }
size_t cublasLtGetVersion() {
  const char* const wanted = std::getenv("COVENANT_FAKE_CUBLASLT_VERSION");
  return wanted == nullptr ? 130000 : std::strtoull(wanted, nullptr, 10);
}
int cublasLtCreate(void** handle) { return *handle = new int(41), 0; }
int cublasLtDestroy(void* handle) { return delete static_cast<int*>(handle), 0; }
int cublasLtMatmulDescCreate(void** desc, int32_t compute, int32_t scale) {
  return *desc = new Desc{compute, scale}, 0;
}
int cublasLtMatmulDescDestroy(void* desc) { return delete static_cast<Desc*>(desc), 0; }
int cublasLtMatmulDescSetAttribute(void* desc, int32_t attribute, const void* from, size_t bytes) {
  if (bytes != sizeof(int32_t) || (attribute != 3 && attribute != 4)) return kInvalid;
  int32_t operation = 0;
  std::memcpy(&operation, from, sizeof operation);
  if (operation != 0 && operation != 1) return kInvalid;
  (attribute == 3 ? static_cast<Desc*>(desc)->left : static_cast<Desc*>(desc)->right) = operation;
  return 0;
}
int cublasLtMatrixLayoutCreate(void** layout, int32_t type, uint64_t rows, uint64_t columns, int64_t ld) {
  if ((type != 0 && type != 14) || ld < static_cast<int64_t>(rows)) return kInvalid;
  return *layout = new Layout{type, rows, columns, ld}, 0;
}
int cublasLtMatrixLayoutDestroy(void* layout) { return delete static_cast<Layout*>(layout), 0; }
int cublasLtMatmulPreferenceCreate(void** preference) { return *preference = new Preference, 0; }
int cublasLtMatmulPreferenceDestroy(void* preference) {
  return delete static_cast<Preference*>(preference), 0;
}
int cublasLtMatmulPreferenceSetAttribute(void* preference, int32_t attribute, const void* from,
                                         size_t bytes) {
  if (attribute != 1 || bytes != sizeof(uint64_t)) return kInvalid;
  std::memcpy(&static_cast<Preference*>(preference)->workspace, from, bytes);
  return 0;
}
int cublasLtMatmulAlgoGetHeuristic(void* handle, void* desc, void* a, void* b, void* c, void* d,
                                   void* preference, int wanted, void* results, int* found) {
  uint64_t size[3];
  if (*static_cast<int*>(handle) != 41 || wanted < 1 || c != d ||
      !fits(*static_cast<Desc*>(desc), *static_cast<Layout*>(a), *static_cast<Layout*>(b),
            *static_cast<Layout*>(c), size))
    return kInvalid;
  const size_t workspace = static_cast<Preference*>(preference)->workspace;
  *static_cast<Heuristic*>(results) = {{size[0], size[1], size[2]}, workspace, 0, 1, {}};
  return *found = 1, 0;
}
int cublasLtMatmul(void* handle, void* desc, const void* alpha, const void* a, void* a_layout,
                   const void* b, void* b_layout, const void* beta, const void* c, void* c_layout,
                   void* d, void* d_layout, const void* algorithm, void* workspace, size_t bytes,
                   void* stream) {
  const Product product = {*static_cast<Desc*>(desc),       *static_cast<Layout*>(a_layout),
                           *static_cast<Layout*>(b_layout), *static_cast<Layout*>(c_layout),
                           *static_cast<Layout*>(d_layout), *static_cast<const float*>(alpha),
                           *static_cast<const float*>(beta)};
  uint64_t size[3];
  if (*static_cast<int*>(handle) != 41 || !fits(product.desc, product.a, product.b, product.d, size) ||
      std::memcmp(algorithm, size, sizeof size) != 0 || workspace == nullptr || stream == nullptr)
    return kInvalid;
  auto* const queue = static_cast<covenant_emulated_stream*>(stream);
  covenant::emulation::queue_together({{queue, [=] {
    covenant::emulation::open_memory(queue->device);
    std::memset(workspace, 0x5a, bytes);  // all of it may be used
    multiply(product, a, b, c, d);
    return true;
  }}});
  ++products;
  return 0;
}
}
