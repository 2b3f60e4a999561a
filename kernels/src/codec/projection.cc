#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "core/thread_pool.h"
#include "covenant/activation.h"
#include "covenant/model.h"
#include "covenant/rng.h"

namespace {

using covenant::ThreadPool;

constexpr int32_t kRowsPerTask = 8;
constexpr int32_t kColumnsPerTask = 16;

cov_status check(const cov_projection& projection, const int32_t* tokens, int32_t rows) {
  if (projection.width < 1 || projection.width > COV_ACTIVATION_WIDTH_MAX || projection.rank < 1 ||
      projection.rank > projection.width || rows < 0) {
    return cov_error(COV_INVALID_ARGUMENT, "%d rows, width %d, rank %d are not possible", rows,
                     projection.width, projection.rank);
  }
  if (projection.basis == nullptr) return cov_error(COV_INVALID_ARGUMENT, "the basis is missing");
  if (projection.table == nullptr) return cov_ok();
  if (tokens == nullptr && rows > 0)
    return cov_error(COV_INVALID_ARGUMENT, "a projection with a table needs tokens");
  for (int32_t row = 0; row < rows; ++row) {
    if (tokens[row] < 0 || tokens[row] >= projection.vocab) {
      return cov_error(COV_OUT_OF_RANGE, "token %d of row %d; the table has %d", tokens[row], row,
                       projection.vocab);
    }
  }
  return cov_ok();
}

int threads_or_default(int32_t threads) { return threads > 0 ? threads : cov_default_threads(); }

template <typename Body>
void for_each(ThreadPool& pool, int32_t count, int32_t per_task, const Body& body) {
  pool.run((count + per_task - 1) / per_task, [&](int64_t task) {
    const auto first = static_cast<int32_t>(task) * per_task;
    for (int32_t i = first; i < std::min(count, first + per_task); ++i) body(i);
  });
}

// out[rank] = sum over i, ascending, of v_i·A[i]; v_i = x_i - e_i where there is an e.
void to_rank(const cov_projection& p, const float* x, const float* e, float* out) {
  std::fill_n(out, p.rank, 0.0f);
  for (int32_t i = 0; i < p.width; ++i) {
    const float value = e != nullptr ? x[i] - e[i] : x[i];
    const float* const row = p.basis + static_cast<int64_t>(i) * p.rank;
    for (int32_t k = 0; k < p.rank; ++k) out[k] = out[k] + value * row[k];
  }
}

// sum over k of z_k·A[i][k], in sixteen partial sums of every sixteenth term, added in pairs.
float dot_rank(const float* z, const float* row, int32_t rank) {
  float sums[16] = {};
  int32_t k = 0;
  for (; k + 16 <= rank; k += 16)
    for (int32_t lane = 0; lane < 16; ++lane) sums[lane] = sums[lane] + z[k + lane] * row[k + lane];
  for (int32_t lane = 0; k < rank; ++k, ++lane) sums[lane] = sums[lane] + z[k] * row[k];
  for (int32_t half = 8; half > 0; half /= 2)
    for (int32_t lane = 0; lane < half; ++lane) sums[lane] = sums[lane] + sums[lane + half];
  return sums[0];
}

const float* table_row(const cov_projection& p, const int32_t* tokens, int32_t row) {
  return p.table == nullptr ? nullptr : p.table + static_cast<int64_t>(tokens[row]) * p.width;
}

// d_basis[i] += sum over rows, ascending, of (x - e)_i·z: a task owns columns i, so no two meet.
void add_outer(ThreadPool& pool, const cov_projection& p, const float* x, const int32_t* tokens,
               const float* z, int32_t rows, float* d_basis) {
  for_each(pool, p.width, kColumnsPerTask, [&](int32_t i) {
    float* const out = d_basis + static_cast<int64_t>(i) * p.rank;
    for (int32_t row = 0; row < rows; ++row) {
      const float* const e = tokens != nullptr ? table_row(p, tokens, row) : nullptr;
      float value = x[static_cast<int64_t>(row) * p.width + i];
      if (e != nullptr) value = value - e[i];
      const float* const own = z + static_cast<int64_t>(row) * p.rank;
      for (int32_t k = 0; k < p.rank; ++k) out[k] = out[k] + value * own[k];
    }
  });
}

// d_table[token] += sign·gradient, rows ascending; a task owns columns.
void add_to_table(ThreadPool& pool, const cov_projection& p, const float* gradient,
                  const int32_t* tokens, int32_t rows, float sign, float* d_table) {
  for_each(pool, p.width, 64, [&](int32_t i) {
    for (int32_t row = 0; row < rows; ++row) {
      float& entry = d_table[static_cast<int64_t>(tokens[row]) * p.width + i];
      entry = entry + sign * gradient[static_cast<int64_t>(row) * p.width + i];
    }
  });
}

// Columns of a width x rank matrix made orthonormal one after the other, twice against rounding.
// False when one is (nearly) a sum of those before it.
bool orthonormalise(std::vector<double>& matrix, int32_t width, int32_t rank) {
  const auto at = [&](int32_t i, int32_t k) -> double& {
    return matrix[static_cast<size_t>(i) * static_cast<size_t>(rank) + static_cast<size_t>(k)];
  };
  for (int32_t k = 0; k < rank; ++k) {
    double before = 0;
    for (int32_t i = 0; i < width; ++i) before += at(i, k) * at(i, k);
    for (int32_t pass = 0; pass < 2; ++pass) {
      for (int32_t j = 0; j < k; ++j) {
        double dot = 0;
        for (int32_t i = 0; i < width; ++i) dot += at(i, j) * at(i, k);
        for (int32_t i = 0; i < width; ++i) at(i, k) -= dot * at(i, j);
      }
    }
    double square = 0;
    for (int32_t i = 0; i < width; ++i) square += at(i, k) * at(i, k);
    if (!(square > 1e-20 * before) || !std::isfinite(square)) return false;
    const double norm = std::sqrt(square);
    for (int32_t i = 0; i < width; ++i) at(i, k) /= norm;
  }
  return true;
}

}  // namespace

cov_status cov_projection_encode(const cov_projection* projection, const float* x,
                                 const int32_t* tokens, int32_t rows, int32_t threads, float* z) {
  const cov_projection& p = *projection;
  if (cov_status status = check(p, tokens, rows); status.code != COV_OK) return status;
  ThreadPool pool(threads_or_default(threads));
  for_each(pool, rows, kRowsPerTask, [&](int32_t row) {
    to_rank(p, x + static_cast<int64_t>(row) * p.width, table_row(p, tokens, row),
            z + static_cast<int64_t>(row) * p.rank);
  });
  return cov_ok();
}

cov_status cov_projection_decode(const cov_projection* projection, const float* z,
                                 const int32_t* tokens, int32_t rows, int32_t threads, float* y) {
  const cov_projection& p = *projection;
  if (cov_status status = check(p, tokens, rows); status.code != COV_OK) return status;
  ThreadPool pool(threads_or_default(threads));
  for_each(pool, rows, kRowsPerTask, [&](int32_t row) {
    const float* const e = table_row(p, tokens, row);
    const float* const own = z + static_cast<int64_t>(row) * p.rank;
    float* const out = y + static_cast<int64_t>(row) * p.width;
    for (int32_t i = 0; i < p.width; ++i) {
      const float value = dot_rank(own, p.basis + static_cast<int64_t>(i) * p.rank, p.rank);
      out[i] = e != nullptr ? value + e[i] : value;
    }
  });
  return cov_ok();
}

cov_status cov_projection_decode_backward(const cov_projection* projection, const float* d_y,
                                          const float* z, const int32_t* tokens, int32_t rows,
                                          int32_t threads, float* d_z, float* d_basis,
                                          float* d_table) {
  const cov_projection& p = *projection;
  if (cov_status status = check(p, tokens, rows); status.code != COV_OK) return status;
  ThreadPool pool(threads_or_default(threads));
  for_each(pool, rows, kRowsPerTask, [&](int32_t row) {
    to_rank(p, d_y + static_cast<int64_t>(row) * p.width, nullptr,
            d_z + static_cast<int64_t>(row) * p.rank);
  });
  if (d_basis != nullptr) add_outer(pool, p, d_y, nullptr, z, rows, d_basis);
  if (d_table != nullptr && p.table != nullptr)
    add_to_table(pool, p, d_y, tokens, rows, 1.0f, d_table);
  return cov_ok();
}

cov_status cov_projection_encode_backward(const cov_projection* projection, const float* d_z,
                                          const float* x, const int32_t* tokens, int32_t rows,
                                          int32_t threads, float* d_x, float* d_basis,
                                          float* d_table) {
  const cov_projection& p = *projection;
  if (cov_status status = check(p, tokens, rows); status.code != COV_OK) return status;
  ThreadPool pool(threads_or_default(threads));
  for_each(pool, rows, kRowsPerTask, [&](int32_t row) {
    const float* const own = d_z + static_cast<int64_t>(row) * p.rank;
    float* const out = d_x + static_cast<int64_t>(row) * p.width;
    for (int32_t i = 0; i < p.width; ++i)
      out[i] = dot_rank(own, p.basis + static_cast<int64_t>(i) * p.rank, p.rank);
  });
  if (d_basis != nullptr)
    add_outer(pool, p, x, p.table != nullptr ? tokens : nullptr, d_z, rows, d_basis);
  if (d_table != nullptr && p.table != nullptr)
    add_to_table(pool, p, d_x, tokens, rows, -1.0f, d_table);
  return cov_ok();
}

cov_status cov_projection_random_basis(uint64_t seed, int32_t width, int32_t rank, float* basis) {
  const cov_projection p = {basis, nullptr, width, rank, 0};
  if (cov_status status = check(p, nullptr, 0); status.code != COV_OK) return status;
  try {
    const size_t count = static_cast<size_t>(width) * static_cast<size_t>(rank);
    std::vector<double> matrix(count);
    const uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
    for (size_t i = 0; i < count; ++i) {
      // Eight 16-bit halves, centred: near enough to Gaussian, exact on every machine.
      const uint32_t counter[4] = {static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), 0,
                                   0x42415349u};
      uint32_t x[4];
      cov_philox4x32(key, counter, x);
      int32_t sum = -262140;
      for (const uint32_t word : x) sum += static_cast<int32_t>((word & 0xffffu) + (word >> 16));
      matrix[i] = sum;
    }
    if (!orthonormalise(matrix, width, rank))
      return cov_error(COV_INTERNAL, "random directions are not independent");
    for (size_t i = 0; i < count; ++i) basis[i] = static_cast<float>(matrix[i]);
    return cov_ok();
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory for a basis");
  }
}

cov_status cov_projection_step(float* basis, const float* gradient, float* momentum, int32_t width,
                               int32_t rank, float rate, float decay) {
  const cov_projection p = {basis, nullptr, width, rank, 0};
  if (cov_status status = check(p, nullptr, 0); status.code != COV_OK) return status;
  try {
    const auto r = static_cast<size_t>(rank);
    const auto w = static_cast<size_t>(width);
    std::vector<double> cross(r * r), moved(w * r), speed(w * r);
    for (size_t i = 0; i < w; ++i)
      for (size_t j = 0; j < r; ++j)
        for (size_t k = 0; k < r; ++k)
          cross[j * r + k] += static_cast<double>(basis[i * r + j]) * gradient[i * r + k];
    for (size_t i = 0; i < w; ++i) {
      for (size_t k = 0; k < r; ++k) {
        double tangent = gradient[i * r + k];
        for (size_t j = 0; j < r; ++j)
          tangent -= basis[i * r + j] * 0.5 * (cross[j * r + k] + cross[k * r + j]);
        speed[i * r + k] = static_cast<double>(decay) * momentum[i * r + k] + tangent;
        moved[i * r + k] = basis[i * r + k] - static_cast<double>(rate) * speed[i * r + k];
      }
    }
    if (!orthonormalise(moved, width, rank))
      return cov_error(COV_NON_FINITE, "the step of the basis is not finite or too long");
    for (size_t i = 0; i < w * r; ++i) {
      basis[i] = static_cast<float>(moved[i]);
      momentum[i] = static_cast<float>(speed[i]);
    }
    return cov_ok();
  } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "no memory for a step of the basis");
  }
}
