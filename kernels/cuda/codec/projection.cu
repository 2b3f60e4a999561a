// Projections: the engine's products and rows of a table.
#include "codec/projection.cuh"

#include "engine/embedding.cuh"
#include "engine/gemm.cuh"
#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

constexpr uint32_t kThreads = 256;

// v = x - table[token], a block for each row.
__global__ void __launch_bounds__(kThreads)
    centre_kernel(const float* x, const float* table, const int32_t* tokens, int32_t width,
                  float* v) {
  const uint64_t row = static_cast<uint64_t>(blockIdx.x) * static_cast<uint64_t>(width);
  const float* const e =
      table + static_cast<uint64_t>(tokens[blockIdx.x]) * static_cast<uint64_t>(width);
  for (auto i = static_cast<int32_t>(threadIdx.x); i < width; i += static_cast<int32_t>(kThreads))
    v[row + i] = __fsub_rn(x[row + i], e[i]);
}

// One call. Uploaded arrays must stay until the work is done.
class Projection {
 public:
  Projection(Device& device, const cov_projection& projection, const int32_t* tokens, int32_t rows)
      : device_(device), p_(projection), scope_(device.scratch()), host_(tokens), rows_(rows) {
    require(codec::check_projection(projection, tokens, rows));
    if (p_.table != nullptr) tokens_ = upload(tokens, static_cast<uint64_t>(rows));
  }

  // (rows, rank) = v·A.
  void to_rank(const float* v, float* z) const {
    multiply(device_.stream(), Product{rows_, p_.rank, p_.width, v, p_.width, 1, p_.basis,
                                              p_.rank, 1, nullptr, z, p_.rank});
  }
  // (rows, width) = init + z·A^T.
  void from_rank(const float* z, const float* init, float* y) const {
    multiply(device_.stream(), Product{rows_, p_.width, p_.rank, z, p_.rank, 1, p_.basis, 1,
                                              p_.rank, init, y, p_.width});
  }
  // d_basis += v^T·z.
  void add_outer(const float* v, const float* z, float* d_basis) const {
    if (rows_ == 0) return;
    multiply(device_.stream(), Product{p_.width, p_.rank, rows_, v, 1, p_.width, z, p_.rank,
                                              1, d_basis, d_basis, p_.rank});
  }
  // x - table[token]; x itself where there is no table.
  const float* centred(const float* x) const {
    if (p_.table == nullptr || rows_ == 0) return x;
    auto* const v = device_.scratch().take<float>(static_cast<uint64_t>(rows_) *
                                                  static_cast<uint64_t>(p_.width));
    COVENANT_LAUNCH(centre_kernel, static_cast<uint32_t>(rows_), kThreads, 0, device_.stream(), x,
                    p_.table, tokens_, p_.width, v);
    return v;
  }
  // y = table[token]; null where there is no table.
  const float* begin_with_table(float* y) const {
    if (p_.table == nullptr) return nullptr;
    embed(device_.stream(), p_.table, tokens_, rows_, p_.width, y);
    return y;
  }
  // d_table[token] += sign·gradient, rows ascending.
  void add_to_table(const float* gradient, float sign, float* d_table) {
    if (d_table == nullptr || p_.table == nullptr) return;
    buckets_ = std::make_unique<TokenBuckets>(host_, rows_);
    const int32_t* const tokens = upload(buckets_->tokens.data(), buckets_->tokens.size());
    const int32_t* const starts = upload(buckets_->starts.data(), buckets_->starts.size());
    const int32_t* const rows = upload(buckets_->rows.data(), buckets_->rows.size());
    embed_backward(device_.stream(), gradient, tokens, starts, rows,
                   static_cast<int64_t>(buckets_->tokens.size()), p_.width, d_table, sign);
  }

 private:
  const int32_t* upload(const int32_t* values, uint64_t count) {
    auto* const to = device_.scratch().take<int32_t>(count);
    device_.upload(to, values, count * sizeof(int32_t));
    return to;
  }

  Device& device_;
  const cov_projection& p_;
  Arena::Scope scope_;
  const int32_t* host_;
  int32_t rows_;
  const int32_t* tokens_ = nullptr;
  std::unique_ptr<TokenBuckets> buckets_;
};

}  // namespace

void projection_encode(Device& device, const cov_projection& projection, const float* x,
                       const int32_t* tokens, int32_t rows, float* z) {
  const Projection p(device, projection, tokens, rows);
  p.to_rank(p.centred(x), z);
  device.finish();
}

void projection_decode(Device& device, const cov_projection& projection, const float* z,
                       const int32_t* tokens, int32_t rows, float* y) {
  const Projection p(device, projection, tokens, rows);
  p.from_rank(z, p.begin_with_table(y), y);
  device.finish();
}

void projection_decode_backward(Device& device, const cov_projection& projection,
                                const float* d_y, const float* z, const int32_t* tokens,
                                int32_t rows, float* d_z, float* d_basis, float* d_table) {
  Projection p(device, projection, tokens, rows);
  p.to_rank(d_y, d_z);
  if (d_basis != nullptr) p.add_outer(d_y, z, d_basis);
  p.add_to_table(d_y, 1.0f, d_table);
  device.finish();
}

void projection_encode_backward(Device& device, const cov_projection& projection,
                                const float* d_z, const float* x, const int32_t* tokens,
                                int32_t rows, float* d_x, float* d_basis, float* d_table) {
  Projection p(device, projection, tokens, rows);
  p.from_rank(d_z, nullptr, d_x);
  if (d_basis != nullptr) p.add_outer(p.centred(x), d_z, d_basis);
  p.add_to_table(d_x, -1.0f, d_table);
  device.finish();
}

}  // namespace covenant::cuda
