#include "codec/activation_rows.h"

#include <cstring>

#include "codec/activation_blocks.h"
#include "covenant/model.h"

namespace covenant::codec {

bool encode_row_portable(int32_t kind, const float* values, int32_t width, uint8_t* out) {
  return encode_row(kind, values, width, out);
}

bool decode_row_portable(int32_t kind, const uint8_t* in, int32_t width, float* values) {
  return decode_row(kind, in, width, values);
}

ActivationRows activation_rows() {
#if defined(__x86_64__)
  // Every other path has AVX2.
  if (std::strcmp(cov_cpu_path(), "portable") != 0) return {encode_row_avx2, decode_row_avx2};
#endif
  return {encode_row_portable, decode_row_portable};
}

}  // namespace covenant::codec
