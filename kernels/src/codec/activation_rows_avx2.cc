#if defined(__x86_64__)
#include "codec/activation_blocks.h"
#include "codec/activation_rows.h"

namespace covenant::codec {

bool encode_row_avx2(int32_t kind, const float* values, int32_t width, uint8_t* out) {
  return encode_row(kind, values, width, out);
}

bool decode_row_avx2(int32_t kind, const uint8_t* in, int32_t width, float* values) {
  return decode_row(kind, in, width, values);
}

}  // namespace covenant::codec
#endif
