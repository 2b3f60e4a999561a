// With y = x W'^T, W' = W + s B A, and t = x (s A)^T, u = dy (s B): dB = dy^T t, dA = u^T x, as on the CPU
// (src/engine/lora_backward.cc). The gradient of the whole matrix is never formed.
#include "engine/lora.cuh"
#include "engine/math.cuh"

namespace covenant::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kMembers = 3;  // of a group, at most

// The adapters of a group as one: first A stacked (total, k), then B block diagonal (n, total).
struct Stacked {
  int64_t rank, total, n, k;
  struct {
    int64_t a, b;           // in the adapters' buffer
    int64_t first, after;  // rows of the group's matrix
  } members[kMembers];

  __host__ __device__ int64_t count() const { return total * (k + n); }
  // Where element `at` lies in the adapters' buffer; -1 outside the blocks of B.
  __device__ int64_t place(int64_t at) const {
    const int64_t size_a = total * k;
    if (at < size_a) {
      const int64_t row = at / k;
      return members[row / rank].a + row % rank * k + at % k;
    }
    const int64_t row = (at - size_a) / total, column = (at - size_a) % total;
    const auto& m = members[column / rank];
    return row < m.first || row >= m.after ? -1 : m.b + (row - m.first) * rank + column % rank;
  }
};

Stacked stack(const LoraPlan& plan, const LoraPlan::Group& group) {
  Stacked s{plan.rank, plan.group_rank(group), group.n, group.k, {}};
  for (size_t i = 0; i < group.count; ++i) {
    const LoraPlan::Adapter& m = plan.adapters[group.first + i];
    const int64_t first = (m.offset - group.offset) / m.k;
    s.members[i] = {m.a, m.b, first, first + m.n};
  }
  return s;
}

template <typename T>
__global__ void scale_kernel(Stacked s, const float* p, float scale, T* out) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= s.count()) return;
  const int64_t from = s.place(at);
  put(out + at, from < 0 ? 0.0f : scale * p[from]);
}

__global__ void collect_kernel(Stacked s, const float* stacked, float* g) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= s.count()) return;
  const int64_t to = s.place(at);
  if (to >= 0) g[to] += stacked[at];
}

// The four products in the two formats. out (m, n) = left right, with lines of `left` along k or along m,
// and of `right` along k or along n.
struct InF32 {
  using Type = float;
  static const float* of(Rows rows) { return rows.f32; }
  static void times(Model& model, int64_t m, int64_t n, int64_t k, const float* left, bool left_k,
                    const float* right, bool right_k, float* out) {
    multiply(model.stream(), Product{m, n, k, left, left_k ? k : 1, left_k ? 1 : m, right,
                                     right_k ? 1 : n, right_k ? k : 1, nullptr, out, n});
  }
  static void sums(Model& model, int64_t m, int64_t n, int64_t k, const float* left,
                   const float* right, float* out) {
    times(model, m, n, k, left, false, right, false, out);
  }
};

struct InBf16 {
  using Type = uint16_t;
  static const uint16_t* of(Rows rows) { return rows.bf16; }
  static ProductBf16 product(int64_t m, int64_t n, int64_t k, const uint16_t* left, bool left_k,
                             const uint16_t* right, bool right_k) {
    return {m, n, k, {left, left_k ? k : m, left_k}, {right, right_k ? k : n, right_k}};
  }
  static void times(Model& model, int64_t m, int64_t n, int64_t k, const uint16_t* left, bool left_k,
                    const uint16_t* right, bool right_k, uint16_t* out) {
    ProductBf16 p = product(m, n, k, left, left_k, right, right_k);
    p.rounded = out;
    model.train_product(p);
  }
  static void sums(Model& model, int64_t m, int64_t n, int64_t k, const uint16_t* left,
                   const uint16_t* right, float* out) {
    ProductBf16 p = product(m, n, k, left, false, right, false);
    p.c = out;
    model.train_product(p);
  }
};

template <typename Format>
void add_gradient(Model& model, const Stacked& s, float scale, const float* p, float* g, Rows dy_rows,
                  Rows x_rows, int64_t rows) {
  using T = typename Format::Type;
  Device& device = model.device();
  const T* const dy = Format::of(dy_rows);
  const T* const x = Format::of(x_rows);
  const Arena::Scope scope(device.scratch());
  T* const factors = device.scratch().take<T>(static_cast<uint64_t>(s.count()));
  T* const t = device.scratch().take<T>(static_cast<uint64_t>(rows * s.total));
  float* const sums = device.scratch().take<float>(static_cast<uint64_t>(s.count()));
  T* const a = factors;
  T* const b = factors + s.total * s.k;
  const unsigned blocks = blocks_of(s.count(), kThreads);
  COVENANT_LAUNCH((scale_kernel<T>), blocks, kThreads, 0, device.stream(), s, p, scale, factors);
  Format::times(model, rows, s.total, s.k, x, true, a, true, t);
  Format::sums(model, s.n, s.total, rows, dy, t, sums + s.total * s.k);
  Format::times(model, rows, s.total, s.n, dy, true, b, false, t);
  Format::sums(model, s.total, s.k, rows, t, x, sums);
  COVENANT_LAUNCH(collect_kernel, blocks, kThreads, 0, device.stream(), s, sums, g);
}

}  // namespace

void Lora::gradient(int64_t offset, Rows dy, Rows x, int64_t rows) {
  const int64_t found = plan_.group_at(offset);
  if (found < 0) return;
  const Stacked s = stack(plan_, plan_.groups[static_cast<size_t>(found)]);
  const auto add = model_.bf16() ? add_gradient<InBf16> : add_gradient<InF32>;
  add(model_, s, plan_.scale, state(COV_PARAMETERS), state(COV_GRADIENTS), dy, x, rows);
}

}  // namespace covenant::cuda
