// Projections into a subspace: three products of the engine, and the rows of a table.
#include "codec/projection.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/given.h"
#include "core/thread_pool.h"
#include "covenant/model.h"
#include "covenant/rng.h"
#include "engine/gemm.h"
#include "engine/memory.h"
#include "engine/model.h"

namespace {

using covenant::Buffer;
using covenant::Compute;
using covenant::Memory;
using covenant::PackedMatrix;
using covenant::ThreadPool;

constexpr int32_t kRowsAtOnce = 512;  // bounds the memory for x - E[token]
constexpr int32_t kRowsPerTask = 16;
constexpr int32_t kColumnsPerTask = 64;

// One call: threads and memory.
struct Work {
  const cov_projection& p;
  ThreadPool pool;
  Memory memory{0};
  Buffer<char> packed;

  Work(const cov_projection& projection, int32_t threads)
      : p(projection), pool(threads > 0 ? threads : cov_default_threads()) {}

  const float* table_row(int32_t token) const {
    return p.table + static_cast<int64_t>(token) * p.width;
  }
  PackedMatrix reserve(int64_t k, int64_t n) {
    return {Compute::kF32, k, n,
            packed.reserve(memory, covenant::packed_bytes(Compute::kF32, k, n))};
  }
  // The basis as right-hand side of v·A and of z·A^T.
  PackedMatrix to_rank() {
    PackedMatrix m = reserve(p.width, p.rank);
    covenant::pack_backward(pool, p.basis, m);
    return m;
  }
  PackedMatrix from_rank() {
    PackedMatrix m = reserve(p.rank, p.width);
    covenant::pack_forward(pool, p.basis, m);
    return m;
  }
};

// The engine reads its left-hand sides through a pointer that others write by.
covenant::Operand operand(const float* x) { return {const_cast<float*>(x), nullptr}; }

template <typename Body>
void for_each(ThreadPool& pool, int32_t count, int32_t per_task, const Body& body) {
  pool.run((count + per_task - 1) / per_task, [&](int64_t task) {
    const auto first = static_cast<int32_t>(task) * per_task;
    for (int32_t i = first; i < std::min(count, first + per_task); ++i) body(i);
  });
}

// Calls body(first, rows, v) for parts of x, v being x - E[token], or x itself without a table.
template <typename Body>
void for_centred(Work& work, const float* x, const int32_t* tokens, int32_t rows,
                 const Body& body) {
  const int64_t width = work.p.width;
  if (work.p.table == nullptr) return body(0, rows, x);
  Buffer<float> centred(work.memory, int64_t{std::min(rows, kRowsAtOnce)} * width);
  for (int32_t first = 0; first < rows; first += kRowsAtOnce) {
    const int32_t here = std::min(kRowsAtOnce, rows - first);
    for_each(work.pool, here, kRowsPerTask, [&](int32_t row) {
      const float* const e = work.table_row(tokens[first + row]);
      const float* const from = x + (first + row) * width;
      float* const to = centred.data() + row * width;
      for (int64_t i = 0; i < width; ++i) to[i] = from[i] - e[i];
    });
    body(first, here, centred.data());
  }
}

// d_basis += v^T·z, one chain over the rows.
void add_outer(Work& work, const float* v, const float* z, int32_t rows, float* d_basis) {
  if (rows == 0) return;  // v and z may be null
  const int64_t size =
      covenant::gradient_scratch_size(Compute::kF32, rows, work.p.rank);
  const Buffer<float> scratch(work.memory, size);
  covenant::multiply_gradient(work.pool, Compute::kF32, operand(v), operand(z), rows, work.p.width,
                              work.p.rank, d_basis, scratch.data());
}

// d_table[token] += sign·gradient, rows ascending; a task owns columns.
void add_to_table(Work& work, const float* gradient, const int32_t* tokens, int32_t rows,
                  float sign, float* d_table) {
  const int64_t width = work.p.width;
  work.pool.run((width + kColumnsPerTask - 1) / kColumnsPerTask, [&](int64_t task) {
    const int64_t first = task * kColumnsPerTask, last = std::min(width, first + kColumnsPerTask);
    for (int32_t row = 0; row < rows; ++row) {
      float* const to = d_table + tokens[row] * width;
      for (int64_t i = first; i < last; ++i) to[i] = to[i] + sign * gradient[row * width + i];
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

cov_status covenant::codec::check_projection(const cov_projection& projection,
                                             const int32_t* tokens, int32_t rows) {
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

using covenant::given;
using covenant::codec::check_projection;

namespace {

// What every call needs: a projection, tokens within its table, and buffers for all rows.
template <typename... Buffers>
cov_status check_call(const cov_projection* projection, const int32_t* tokens, int32_t rows,
                      const Buffers*... buffers) {
  if (cov_status status = given("the projection and a buffer for each side", projection,
                                covenant::unless_empty(buffers, rows)...);
      status.code != COV_OK) {
    return status;
  }
  return check_projection(*projection, tokens, rows);
}

}  // namespace

cov_status cov_projection_encode(const cov_projection* projection, const float* x,
                                 const int32_t* tokens, int32_t rows, int32_t threads, float* z) {
  if (cov_status status = check_call(projection, tokens, rows, x, z); status.code != COV_OK)
    return status;
  const cov_projection& p = *projection;
  return covenant::guarded([&] {
    Work work(p, threads);
    const PackedMatrix basis = work.to_rank();
    for_centred(work, x, tokens, rows, [&](int32_t first, int32_t here, const float* v) {
      covenant::multiply(work.pool, operand(v), here, basis, nullptr,
                         z + static_cast<int64_t>(first) * p.rank);
    });
    return cov_ok();
  });
}

cov_status cov_projection_decode(const cov_projection* projection, const float* z,
                                 const int32_t* tokens, int32_t rows, int32_t threads, float* y) {
  if (cov_status status = check_call(projection, tokens, rows, z, y); status.code != COV_OK)
    return status;
  const cov_projection& p = *projection;
  return covenant::guarded([&] {
    Work work(p, threads);
    if (p.table != nullptr) {
      for_each(work.pool, rows, kRowsPerTask, [&](int32_t row) {
        std::copy_n(work.table_row(tokens[row]), p.width, y + static_cast<int64_t>(row) * p.width);
      });
    }
    covenant::multiply(work.pool, operand(z), rows, work.from_rank(),
                       p.table != nullptr ? y : nullptr, y);
    return cov_ok();
  });
}

cov_status cov_projection_decode_backward(const cov_projection* projection, const float* d_y,
                                          const float* z, const int32_t* tokens, int32_t rows,
                                          int32_t threads, float* d_z, float* d_basis,
                                          float* d_table) {
  if (cov_status status = check_call(projection, tokens, rows, d_y, z, d_z); status.code != COV_OK)
    return status;
  const cov_projection& p = *projection;
  return covenant::guarded([&] {
    Work work(p, threads);
    covenant::multiply(work.pool, operand(d_y), rows, work.to_rank(), nullptr, d_z);
    if (d_basis != nullptr) add_outer(work, d_y, z, rows, d_basis);
    if (d_table != nullptr && p.table != nullptr)
      add_to_table(work, d_y, tokens, rows, 1.0f, d_table);
    return cov_ok();
  });
}

cov_status cov_projection_encode_backward(const cov_projection* projection, const float* d_z,
                                          const float* x, const int32_t* tokens, int32_t rows,
                                          int32_t threads, float* d_x, float* d_basis,
                                          float* d_table) {
  if (cov_status status = check_call(projection, tokens, rows, d_z, x, d_x); status.code != COV_OK)
    return status;
  const cov_projection& p = *projection;
  return covenant::guarded([&] {
    Work work(p, threads);
    covenant::multiply(work.pool, operand(d_z), rows, work.from_rank(), nullptr, d_x);
    if (d_basis != nullptr) {
      for_centred(work, x, tokens, rows, [&](int32_t first, int32_t here, const float* v) {
        add_outer(work, v, d_z + static_cast<int64_t>(first) * p.rank, here, d_basis);
      });
    }
    if (d_table != nullptr && p.table != nullptr)
      add_to_table(work, d_x, tokens, rows, -1.0f, d_table);
    return cov_ok();
  });
}

cov_status cov_projection_random_basis(uint64_t seed, int32_t width, int32_t rank, float* basis) {
  const cov_projection p = {basis, nullptr, width, rank, 0};
  if (cov_status status = check_projection(p, nullptr, 0); status.code != COV_OK) return status;
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
  if (cov_status status = given("basis, gradient and momentum", basis, gradient, momentum);
      status.code != COV_OK) {
    return status;
  }
  const cov_projection p = {basis, nullptr, width, rank, 0};
  if (cov_status status = check_projection(p, nullptr, 0); status.code != COV_OK) return status;
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
