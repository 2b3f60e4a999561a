#include "codec/activation.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <new>

#include "core/thread_pool.h"
#include "covenant/model.h"
#include "sparse/layout.h"

namespace {

using covenant::ThreadPool;
using covenant::codec::activation_row_bytes;
using covenant::codec::kActivationMax;
using covenant::sparse::load_u16;
using covenant::sparse::load_u32;
using covenant::sparse::store_u16;
using covenant::sparse::store_u32;

constexpr int32_t kBlock = covenant::codec::kActivationBlock;
constexpr int32_t kRowsPerTask = 16;

float from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The smallest bf16 that is not below a value >= 0.
uint16_t bf16_above(float value) {
  return static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + 0xffff) >> 16);
}

// Walsh-Hadamard in six rounds, then / 8: its own inverse.
void hadamard(float* values) {
  for (int32_t half = 1; half < kBlock; half *= 2) {
    for (int32_t first = 0; first < kBlock; first += 2 * half) {
      for (int32_t i = first; i < first + half; ++i) {
        const float a = values[i], b = values[i + half];
        values[i] = a + b;
        values[i + half] = a - b;
      }
    }
  }
  for (int32_t i = 0; i < kBlock; ++i) values[i] *= 0.125f;
}

float largest_of(const float* values, int32_t n) {
  uint32_t largest = 0;
  for (int32_t i = 0; i < n; ++i)
    largest = std::max(largest, std::bit_cast<uint32_t>(values[i]) & 0x7fffffff);
  return std::bit_cast<float>(largest);
}

// Codes of n values up to `most`; false when a value is not finite or the scale would not be.
bool quantise(const float* values, int32_t n, int32_t most, uint8_t* scale, int8_t* codes) {
  const float largest = largest_of(values, n);
  if (!(largest <= kActivationMax)) return false;
  const uint16_t bits = bf16_above(largest / static_cast<float>(most));
  const float step = from_bf16(bits);
  store_u16(scale, bits);
  for (int32_t i = 0; i < n; ++i) {
    // A step of the smallest subnormals may be coarser than the bound: the clamp keeps the format.
    const float code = step == 0 ? 0.0f : std::nearbyintf(values[i] / step);
    codes[i] = static_cast<int8_t>(std::clamp(static_cast<int32_t>(code), -most, most));
  }
  return true;
}

bool encode_row(int32_t kind, const float* values, int32_t width, uint8_t* out) {
  if (kind == COV_ACTIVATION_BF16) {
    bool finite = true;
    for (int32_t i = 0; i < width; ++i) {
      const uint16_t bits = to_bf16(values[i]);
      finite &= (bits & 0x7f80) != 0x7f80;
      store_u16(out + 2 * i, bits);
    }
    return finite;
  }
  for (int32_t at = 0; at < width; at += kBlock) {
    const int32_t n = std::min(kBlock, width - at);
    int8_t codes[kBlock];
    if (kind == COV_ACTIVATION_INT8) {
      if (!quantise(values + at, n, 127, out, codes)) return false;
      std::memcpy(out + 2, codes, static_cast<size_t>(n));
      out += 2 + n;
      continue;
    }
    float block[kBlock] = {};
    std::copy_n(values + at, n, block);
    hadamard(block);
    if (!quantise(block, kBlock, 7, out, codes)) return false;
    for (int32_t i = 0; i < kBlock / 2; ++i)
      out[2 + i] = static_cast<uint8_t>((codes[2 * i] & 15) | (codes[2 * i + 1] & 15) << 4);
    out += 2 + kBlock / 2;
  }
  return true;
}

// False for a scale or code that no encoder writes.
bool decode_row(int32_t kind, const uint8_t* in, int32_t width, float* values) {
  bool good = true;
  if (kind == COV_ACTIVATION_BF16) {
    for (int32_t i = 0; i < width; ++i) {
      const uint16_t bits = load_u16(in + 2 * i);
      good &= (bits & 0x7f80) != 0x7f80;
      values[i] = from_bf16(bits);
    }
    return good;
  }
  const int32_t most = kind == COV_ACTIVATION_INT8 ? 127 : 7;
  for (int32_t at = 0; at < width; at += kBlock) {
    const int32_t n = std::min(kBlock, width - at);
    const uint16_t bits = load_u16(in);
    if (bits > covenant::codec::activation_scale_max(most)) return false;
    const float step = from_bf16(bits);
    float block[kBlock];
    const int32_t coded = kind == COV_ACTIVATION_INT8 ? n : kBlock;
    for (int32_t i = 0; i < coded; ++i) {
      const int32_t code = kind == COV_ACTIVATION_INT8
                               ? static_cast<int8_t>(in[2 + i])
                               : ((in[2 + i / 2] >> (4 * (i & 1)) & 15) ^ 8) - 8;
      good &= code >= -most && code <= most && (bits != 0 || code == 0);
      block[i] = static_cast<float>(code) * step;
    }
    if (kind == COV_ACTIVATION_INT4) hadamard(block);
    std::copy_n(block, n, values + at);
    for (int32_t i = 0; i < n; ++i) good &= std::isfinite(block[i]);
    in += kind == COV_ACTIVATION_INT8 ? 2 + n : 2 + kBlock / 2;
  }
  return good;
}

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
  if (std::memcmp(payload, "CVA1", 4) != 0 || load_u32(payload + 4) != static_cast<uint32_t>(kind) ||
      load_u32(payload + 8) != static_cast<uint32_t>(rows) ||
      load_u32(payload + 12) != static_cast<uint32_t>(width))
    return cov_error(COV_MALFORMED, "activations of another format, kind or shape than agreed");
  return cov_ok();
}

uint32_t activation_scale_max(int32_t most) {
  return bf16_above(kActivationMax / static_cast<float>(most));
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
  *bytes = COV_ACTIVATION_HEADER_BYTES +
           static_cast<uint64_t>(rows) * activation_row_bytes(kind, width);
  return cov_ok();
}

cov_status cov_activation_encode(int32_t kind, const float* values, int32_t rows, int32_t width,
                                 int32_t threads, uint8_t* payload, uint64_t payload_bytes) {
  const cov_status status =
      covenant::codec::begin_activation(kind, rows, width, payload, payload_bytes);
  if (status.code != COV_OK) return status;
  const uint64_t stride = activation_row_bytes(kind, width);
  const bool finite = for_rows(rows, threads, [&](int32_t row) {
    return encode_row(kind, values + static_cast<int64_t>(row) * width, width,
                      payload + COV_ACTIVATION_HEADER_BYTES + static_cast<uint64_t>(row) * stride);
  });
  return finite ? cov_ok() : covenant::codec::activation_not_finite();
}

cov_status cov_activation_decode(int32_t kind, const uint8_t* payload, uint64_t payload_bytes,
                                 int32_t rows, int32_t width, int32_t threads, float* values) {
  const cov_status status =
      covenant::codec::check_activation(kind, rows, width, payload, payload_bytes);
  if (status.code != COV_OK) return status;
  const uint64_t stride = activation_row_bytes(kind, width);
  const bool good = for_rows(rows, threads, [&](int32_t row) {
    return decode_row(kind,
                      payload + COV_ACTIVATION_HEADER_BYTES + static_cast<uint64_t>(row) * stride,
                      width, values + static_cast<int64_t>(row) * width);
  });
  return good ? cov_ok() : covenant::codec::activation_out_of_range();
}
