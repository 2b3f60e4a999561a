// The second half of compress for one chunk, on the kept values alone: how large they are, and the
// bytes that say so.
#pragma once

#include <cstdint>

namespace covenant::sparse {

// What the scale of a chunk is made from. kept >= 1; values finite.
struct Magnitude {
  uint32_t exponent;  // biased exponent of the largest value, at least 1; 0 when all are zero
  uint64_t sum;       // of the mantissas, cut to that exponent
};
using MagnitudeFunction = Magnitude (*)(const float* values, int32_t kept);

Magnitude magnitude_portable(const float* values, int32_t kept);
Magnitude magnitude_avx512(const float* values, int32_t kept);

// Writes the fields of a chunk behind its scale into zeroed bytes, and to e[indices[j]] what is
// left of values[j]. A value is high if its magnitude is above `middle`.
struct EncodeLevels {
  float low;
  float high;
  float middle;
};
struct EncodeFields {
  uint8_t* low;    // 6·kept bits
  uint8_t* upper;  // the Elias-Fano bitmap
  uint8_t* codes;  // mode·kept bits
};
using EncodeFunction = void (*)(const EncodeFields& fields, int32_t kept, int32_t mode,
                                const EncodeLevels& levels, const uint16_t* indices,
                                const float* values, float* e);

void encode_portable(const EncodeFields& fields, int32_t kept, int32_t mode,
                     const EncodeLevels& levels, const uint16_t* indices, const float* values,
                     float* e);
// kept = 64 only, of a chunk with at most 4096 values; indices must be readable as 64 values.
void encode64_avx512(const EncodeFields& fields, int32_t kept, int32_t mode,
                     const EncodeLevels& levels, const uint16_t* indices, const float* values,
                     float* e);

}  // namespace covenant::sparse
