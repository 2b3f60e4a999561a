#include "codec/activation.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cinttypes>
#include <cstring>

#include "codec/activation_rows.h"
#include "core/given.h"
#include "core/thread_pool.h"
#include "covenant/model.h"
#include "sparse/layout.h"

namespace {

using covenant::ThreadPool;
using covenant::codec::activation_row_bytes;
using covenant::sparse::load_u32;
using covenant::sparse::store_u32;

constexpr int32_t kBlock = covenant::codec::kActivationBlock;
constexpr int32_t kRowsPerTask = 16;

// Runs body(row) for all rows; false when it was false for some.
template <typename Body>
bool for_rows(int32_t rows, int32_t threads, const Body& body) {
  ThreadPool pool(threads > 0 ? threads : cov_default_threads());
  std::atomic<bool> good{true};
  pool.run((rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
    const auto first = static_cast<int32_t>(task) * kRowsPerTask;
    for (int32_t row = first; row < std::min(rows, first + kRowsPerTask); ++row)
      if (!body(row)) good = false;
  });
  return good;
}

}  // namespace

namespace covenant::codec {

uint64_t activation_row_bytes(int32_t kind, int32_t width) {
  const auto w = static_cast<uint64_t>(width);
  const uint64_t blocks = (w + kBlock - 1) / kBlock;
  switch (kind) {
    case COV_ACTIVATION_BF16:
      return 2 * w;
    case COV_ACTIVATION_INT8:
      return 2 * blocks + w;
    default:
      return blocks * (2 + kBlock / 2);
  }
}

cov_status begin_activation(int32_t kind, int32_t rows, int32_t width, uint8_t* payload,
                            uint64_t payload_bytes) {
  uint64_t wanted = 0;
  if (cov_status status = cov_activation_size(kind, rows, width, &wanted); status.code != COV_OK)
    return status;
  if (payload_bytes != wanted) {
    return cov_error(COV_INVALID_ARGUMENT, "the payload takes %" PRIu64 " bytes, not %" PRIu64,
                     wanted, payload_bytes);
  }
  if (cov_status status = given("payload", payload); status.code != COV_OK)
    return status;
  std::memcpy(payload, "CVA1", 4);
  store_u32(payload + 4, static_cast<uint32_t>(kind));
  store_u32(payload + 8, static_cast<uint32_t>(rows));
  store_u32(payload + 12, static_cast<uint32_t>(width));
  return cov_ok();
}

cov_status check_activation(int32_t kind, int32_t rows, int32_t width, const uint8_t* payload,
                            uint64_t payload_bytes) {
  uint64_t wanted = 0;
  if (cov_status status = cov_activation_size(kind, rows, width, &wanted); status.code != COV_OK)
    return status;
  if (payload_bytes != wanted) {
    return cov_error(COV_MALFORMED, "%" PRIu64 " bytes of activations; agreed are %" PRIu64,
                     payload_bytes, wanted);
  }
  if (cov_status status = given("payload", payload); status.code != COV_OK)
    return status;
  if (std::memcmp(payload, "CVA1", 4) != 0 || load_u32(payload + 4) != static_cast<uint32_t>(kind) ||
      load_u32(payload + 8) != static_cast<uint32_t>(rows) ||
      load_u32(payload + 12) != static_cast<uint32_t>(width))
    return cov_error(COV_MALFORMED, "activations of another format, kind or shape than agreed");
  return cov_ok();
}

uint32_t activation_scale_max(int32_t kind) {
  const float largest = activation_max(kind) / (kind == COV_ACTIVATION_INT4 ? 7.0f : 127.0f);
  return (std::bit_cast<uint32_t>(largest) + 0xffff) >> 16;
}

cov_status activation_not_finite() {
  return cov_error(COV_NON_FINITE, "an activation is NaN, infinite or too large");
}

cov_status activation_out_of_range() {
  return cov_error(COV_MALFORMED, "activations with a scale or code out of range");
}

}  // namespace covenant::codec

cov_status cov_activation_size(int32_t kind, int32_t rows, int32_t width, uint64_t* bytes) {
  if (kind < COV_ACTIVATION_BF16 || kind > COV_ACTIVATION_INT4)
    return cov_error(COV_INVALID_ARGUMENT, "activation codec %d is not known", kind);
  if (rows < 0 || width < 1 || width > COV_ACTIVATION_WIDTH_MAX ||
      static_cast<int64_t>(rows) * width > COV_ACTIVATION_VALUES_MAX)
    return cov_error(COV_INVALID_ARGUMENT, "%d rows of %d values are not possible", rows, width);
  if (cov_status status = covenant::given("bytes", bytes); status.code != COV_OK)
    return status;
  *bytes = COV_ACTIVATION_HEADER_BYTES +
           static_cast<uint64_t>(rows) * activation_row_bytes(kind, width);
  return cov_ok();
}

cov_status cov_activation_encode(int32_t kind, const float* values, int32_t rows, int32_t width,
                                 int32_t threads, uint8_t* payload, uint64_t payload_bytes) {
  if (cov_status status = covenant::given("values", covenant::unless_empty(values, rows));
      status.code != COV_OK) {
    return status;
  }
  const cov_status status =
      covenant::codec::begin_activation(kind, rows, width, payload, payload_bytes);
  if (status.code != COV_OK) return status;
  const uint64_t stride = activation_row_bytes(kind, width);
  const auto encode_row = covenant::codec::activation_rows().encode;
  const bool finite = for_rows(rows, threads, [&](int32_t row) {
    return encode_row(kind, values + static_cast<int64_t>(row) * width, width,
                      payload + COV_ACTIVATION_HEADER_BYTES + static_cast<uint64_t>(row) * stride);
  });
  return finite ? cov_ok() : covenant::codec::activation_not_finite();
}

cov_status cov_activation_decode(int32_t kind, const uint8_t* payload, uint64_t payload_bytes,
                                 int32_t rows, int32_t width, int32_t threads, float* values) {
  if (cov_status status = covenant::given("values", covenant::unless_empty(values, rows));
      status.code != COV_OK) {
    return status;
  }
  const cov_status status =
      covenant::codec::check_activation(kind, rows, width, payload, payload_bytes);
  if (status.code != COV_OK) return status;
  const uint64_t stride = activation_row_bytes(kind, width);
  const auto decode_row = covenant::codec::activation_rows().decode;
  const bool good = for_rows(rows, threads, [&](int32_t row) {
    return decode_row(kind,
                      payload + COV_ACTIVATION_HEADER_BYTES + static_cast<uint64_t>(row) * stride,
                      width, values + static_cast<int64_t>(row) * width);
  });
  return good ? cov_ok() : covenant::codec::activation_out_of_range();
}
