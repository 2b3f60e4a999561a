// Activations between pipeline stages: quantising codecs, and projections into a subspace (fixed or
// learned), forward and backward. Tier A: the same bits on every machine and for every thread count
// (IEEE fp32 in a fixed order, fp64 where said).
//
// Errors: COV_INVALID_ARGUMENT for shapes and lengths that can never be valid, COV_OUT_OF_RANGE for
// a token beyond the table, COV_MALFORMED, COV_NON_FINITE, COV_OUT_OF_MEMORY. Nothing is kept between
// calls, which may run at the same time. threads 0: cov_default_threads.
//
// ---- Quantising ----------------------------------------------------------------------------
//
// payload: "CVA1" · u8 kind · 3 zero bytes · u32 rows · u32 width, little-endian, then row by row:
//   COV_ACTIVATION_BF16: each value rounded to bf16 (nearest even)
//   COV_ACTIVATION_INT8: per block of 64 values (the last one shorter): u16 scale, the bf16 nearest
//     to max|v| / 127 from above; i8 codes = v / scale, nearest even
//   COV_ACTIVATION_INT4: per block of 64 values, the last one filled up with zeros: the block times
//     the 64x64 Walsh-Hadamard matrix / 8, which spreads outliers; u16 scale, the bf16 nearest to
//     max|.| / 7 from above; 64 codes of 4 bits, two's complement, nearest even, low half first.
//     Decoding applies the same matrix again
//   Rotated values above 2^121 are refused, as rotating them back might overflow; up to 2^118 (3e35)
//   every value is accepted
// A scale is finite and not negative; where it is zero all codes are. Codes are -127..127 and -7..7.
//
// Backward: rounding has no useful derivative, so all three are straight-through: dL/dv is taken to
// be dL/d(decoded v). A gradient that travels back may itself be encoded with any of them.
//
// ---- Projections ---------------------------------------------------------------------------
//
// basis A (width x rank, row-major) with orthonormal columns; optional table E (vocab x width):
//   encode  z = (x - E[token])·A        decode  y = E[token] + z·A^T
// x, y and their gradients are rows x width, z and its gradient rows x rank, all row-major; tokens
// has one for each row.
// Sender and receiver may have different tables. With a fixed A this is the codec of subspace
// networks: lossless when x - E[token] lies in the span of A. With a learned A both ends add up
//   receiver: dz = dy·A, dA += dy^T·z, dE[token] += dy
//   sender:   dx = dz·A^T, dA += (x - E[token])^T·dz, dE[token] -= dx
// each sum one chain of fused multiply-adds in the order of the index that is summed over (rows
// ascending), begun from what is added to. cov_projection_step moves A along the Stiefel manifold. z
// goes over the wire as it is or by a quantising codec.
#ifndef COVENANT_ACTIVATION_H
#define COVENANT_ACTIVATION_H

#include <stdint.h>

#include "covenant/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cov_activation_kind {
  COV_ACTIVATION_BF16 = 0,
  COV_ACTIVATION_INT8 = 1,
  COV_ACTIVATION_INT4 = 2,
} cov_activation_kind;

#define COV_ACTIVATION_HEADER_BYTES 16
#define COV_ACTIVATION_WIDTH_MAX (1 << 20)
#define COV_ACTIVATION_VALUES_MAX (1ll << 34)

// Exact size of a payload.
cov_status cov_activation_size(int32_t kind, int32_t rows, int32_t width, uint64_t* bytes);

// values: rows x width. COV_NON_FINITE when one is NaN, infinite or too large for the codec; else
// the payload decodes.
cov_status cov_activation_encode(int32_t kind, const float* values, int32_t rows, int32_t width,
                                 int32_t threads, uint8_t* payload, uint64_t payload_bytes);

// Refuses (COV_MALFORMED) whatever no encoder writes and anything but the agreed kind and shape.
// Decoded values are finite.
cov_status cov_activation_decode(int32_t kind, const uint8_t* payload, uint64_t payload_bytes,
                                 int32_t rows, int32_t width, int32_t threads, float* values);

typedef struct cov_projection {
  const float* basis;  // width x rank
  const float* table;  // vocab x width, or NULL: no table, and tokens are not read
  int32_t width;       // 1..COV_ACTIVATION_WIDTH_MAX
  int32_t rank;        // 1..width
  int32_t vocab;
} cov_projection;

cov_status cov_projection_encode(const cov_projection* projection, const float* x,
                                 const int32_t* tokens, int32_t rows, int32_t threads, float* z);
cov_status cov_projection_decode(const cov_projection* projection, const float* z,
                                 const int32_t* tokens, int32_t rows, int32_t threads, float* y);

// d_basis (width x rank) and d_table (vocab x width) accumulate; either may be NULL.
cov_status cov_projection_decode_backward(const cov_projection* projection, const float* d_y,
                                          const float* z, const int32_t* tokens, int32_t rows,
                                          int32_t threads, float* d_z, float* d_basis,
                                          float* d_table);
cov_status cov_projection_encode_backward(const cov_projection* projection, const float* d_z,
                                          const float* x, const int32_t* tokens, int32_t rows,
                                          int32_t threads, float* d_x, float* d_basis,
                                          float* d_table);

// A random basis (width x rank) with orthonormal columns, the same on every machine for a seed.
cov_status cov_projection_random_basis(uint64_t seed, int32_t width, int32_t rank, float* basis);

// One step on the Stiefel manifold: R = g - A·sym(A^T·g), momentum <- decay·momentum + R,
// A <- Q of the QR decomposition (positive diagonal) of A - rate·momentum; fp64 inside. basis A,
// gradient g and momentum are width x rank. COV_NON_FINITE leaves all as it was.
cov_status cov_projection_step(float* basis, const float* gradient, float* momentum, int32_t width,
                               int32_t rank, float rate, float decay);

#ifdef __cplusplus
}
#endif
#endif
