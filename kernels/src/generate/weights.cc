// Packing of a model's parameters for generation.
#include "generate/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/lora.h"

namespace covenant {
namespace {

int64_t round64(int64_t n) { return (n + 63) / 64 * 64; }
int64_t panels_of(int64_t n) { return (n + kWeightPanel - 1) / kWeightPanel; }
int64_t fours_of(int64_t k) { return (k + 3) / 4; }

float rounded(float x) {
  const uint32_t bits = static_cast<uint32_t>(bf16_of(x)) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}

// Cuts the snapshot's one block; a first pass without a base measures it.
struct Cutter {
  uint8_t* base;
  int64_t used = 0;
  template <typename T>
  T* take(int64_t count) {
    uint8_t* p = base == nullptr ? nullptr : base + used;
    used += round64(count * static_cast<int64_t>(sizeof(T)));
    return reinterpret_cast<T*>(p);
  }
};

void pack_f32(const float* w, int64_t n, int64_t k, int64_t panel, float* out) {
  const int64_t first = panel * kWeightPanel, columns = std::min(kWeightPanel, n - first);
  float* to = out + first * k;
  if (columns < kWeightPanel)
    std::memset(to, 0, static_cast<size_t>(kWeightPanel * k) * sizeof(float));
  constexpr int64_t kBlock = 16;  // of a row: one cache line
  for (int64_t j = 0; j < k; j += kBlock)
    for (int64_t c = 0; c < columns; ++c) {
      const float* row = w + (first + c) * k;
      for (int64_t i = j; i < std::min(k, j + kBlock); ++i) to[i * kWeightPanel + c] = row[i];
    }
}

// Columns c and 16 + c next to each other.
void pack_bf16(const float* w, int64_t n, int64_t k, int64_t panel, uint16_t* out) {
  const int64_t first = panel * kWeightPanel, columns = std::min(kWeightPanel, n - first);
  uint16_t* to = out + first * k;
  for (int64_t c = 0; c < kWeightPanel; ++c) {
    uint16_t* column = to + (c % 16) * 2 + c / 16;
    const float* row = w + (first + c) * k;
    for (int64_t j = 0; j < k; ++j) column[j * kWeightPanel] = c < columns ? bf16_of(row[j]) : 0;
  }
}

struct Int8Target {
  int8_t* bytes;
  float* scales;
  int32_t* offsets;
};

void pack_int8(const float* w, int64_t n, int64_t k, int64_t panel, const Int8Target& to) {
  const int64_t first = panel * kWeightPanel, columns = std::min(kWeightPanel, n - first);
  int8_t* bytes = to.bytes + panel * fours_of(k) * 4 * kWeightPanel;
  std::memset(bytes, 0, static_cast<size_t>(fours_of(k) * 4 * kWeightPanel));
  for (int64_t c = 0; c < kWeightPanel; ++c) {
    float max = 0.0f;
    bool finite = true;
    const float* row = w + (first + c) * k;
    for (int64_t j = 0; c < columns && j < k; ++j) {
      max = std::max(max, std::fabs(row[j]));
      finite = finite && std::isfinite(row[j]);
    }
    int32_t sum = 0;
    const bool usable = finite && max >= 1e-30f;
    if (usable) {
      const float inverse = 127.0f / max;
      for (int64_t j = 0; j < k; ++j) {
        // Rounds half to even.
        const float q = (row[j] * inverse + 12582912.0f) - 12582912.0f;
        bytes[(j / 4 * kWeightPanel + c) * 4 + j % 4] = static_cast<int8_t>(q);
        sum += static_cast<int32_t>(q);
      }
    }
    // A column that is not finite poisons its output, as it would in fp32.
    to.scales[first + c] = usable ? max / 127.0f : finite ? 0.0f : NAN;
    to.offsets[first + c] = 128 * sum;
  }
}

GenerationMatrix pack_matrix(ThreadPool& pool, Cutter& cutter, int32_t type, const float* w, int64_t n,
                         int64_t k) {
  GenerationMatrix m;
  m.n = n;
  m.k = k;
  m.type = type;
  const int64_t panels = panels_of(n);
  const bool parallel = n * k > (1 << 17);
  if (type == COV_WEIGHTS_F32) {
    float* out = cutter.take<float>(panels * kWeightPanel * k);
    m.f32 = out;
    if (out != nullptr)
      pool.run(panels, [&](int64_t p) { pack_f32(w, n, k, p, out); }, parallel);
  } else if (type == COV_WEIGHTS_BF16) {
    uint16_t* out = cutter.take<uint16_t>(panels * kWeightPanel * k);
    m.bf16 = out;
    if (out != nullptr)
      pool.run(panels, [&](int64_t p) { pack_bf16(w, n, k, p, out); }, parallel);
  } else {
    const int64_t panel_bytes = fours_of(k) * 4 * kWeightPanel;
    Int8Target to;
    to.bytes = cutter.take<int8_t>(panels * panel_bytes);
    to.scales = cutter.take<float>(panels * kWeightPanel);
    to.offsets = cutter.take<int32_t>(panels * kWeightPanel);
    m.int8 = {to.bytes, panel_bytes, to.scales, to.offsets};
    if (to.bytes != nullptr)
      pool.run(panels, [&](int64_t p) { pack_int8(w, n, k, p, to); }, parallel);
  }
  return m;
}

}  // namespace

uint16_t bf16_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

void GenerationWeights::pack(cov_model& model, int32_t type) {
  const Layout& l = model.layout;
  const float* p = model.parameters();
  type_ = type;
  d_ = l.d;
  const auto lay_out = [&](uint8_t* base) {
    Cutter cutter{base};
    const auto matrix = [&](int64_t offset, int64_t n, int64_t k) {
      const float* w = base == nullptr ? nullptr : effective_matrix(model, offset, n, k);
      return pack_matrix(model.pool, cutter, type, w, n, k);
    };
    const auto vector = [&](int64_t offset, int64_t count) {
      float* out = cutter.take<float>(count);
      for (int64_t i = 0; out != nullptr && i < count; ++i)
        out[i] = type == COV_WEIGHTS_BF16 ? rounded(p[offset + i]) : p[offset + i];
      return out;
    };
    layers_.resize(static_cast<size_t>(l.layers));
    for (int64_t i = 0; i < l.layers; ++i) {
      Layer& layer = layers_[static_cast<size_t>(i)];
      layer.norm1 = vector(l.norm1(i), l.d);
      layer.qkv = matrix(l.qkv(i), l.attention.width(), l.d);
      layer.o = matrix(l.o(i), l.d, l.d);
      layer.norm2 = vector(l.norm2(i), l.d);
      layer.gate = matrix(l.gate_up(i), l.f, l.d);
      layer.up = matrix(l.gate_up(i) + l.f * l.d, l.f, l.d);
      layer.down = matrix(l.down(i), l.d, l.f);
    }
    final_norm_ = vector(l.final_norm, l.d);
    head_ = matrix(l.head, l.vocab, l.d);
    if (type == COV_WEIGHTS_BF16) {
      uint16_t* out = cutter.take<uint16_t>(l.vocab * l.d);
      for (int64_t i = 0; out != nullptr && i < l.vocab * l.d; ++i) out[i] = bf16_of(p[i]);
      embedding_bf16_ = out;
      embedding_f32_ = nullptr;
    } else {
      embedding_f32_ = vector(0, l.vocab * l.d);
      embedding_bf16_ = nullptr;
    }
    return cutter.used;
  };
  lay_out(data_.reserve(model.memory, lay_out(nullptr)));
}

void GenerationWeights::embed(const int32_t* tokens, int64_t rows, float* x) const {
  for (int64_t i = 0; i < rows; ++i) {
    if (embedding_f32_ != nullptr) {
      std::memcpy(x + i * d_, embedding_f32_ + tokens[i] * d_,
                  static_cast<size_t>(d_) * sizeof(float));
      continue;
    }
    const uint16_t* row = embedding_bf16_ + tokens[i] * d_;
    for (int64_t j = 0; j < d_; ++j) {
      const uint32_t bits = static_cast<uint32_t>(row[j]) << 16;
      std::memcpy(x + i * d_ + j, &bits, 4);
    }
  }
}

void multiply_block(const GenerationKernels& kernel, const GenerationMatrix& w, int64_t m, int64_t first,
                    int64_t columns, const float* x, int64_t x_row, const Int8Rows& bytes,
                    const float* residual, float* out, int64_t out_row) {
  if (w.type == COV_WEIGHTS_F32) {
    kernel.linear_f32(m, columns, w.k, x, x_row, w.f32 + first * w.k, residual, out, out_row);
  } else if (w.type == COV_WEIGHTS_BF16) {
    kernel.linear_bf16(m, columns, w.k, x, x_row, w.bf16 + first * w.k, residual, out, out_row);
  } else {
    Int8Panels panels = w.int8;
    panels.bytes += first / kWeightPanel * panels.panel_bytes;
    panels.scales += first;
    panels.offsets += first;
    kernel.linear_int8(m, columns, w.k, bytes, panels, residual, out, out_row);
  }
}

}  // namespace covenant
