#include "sparse/body.h"

#include <cinttypes>
#include <cmath>
#include <cstring>

#include "core/given.h"

namespace covenant::sparse {

cov_status check_header(const uint8_t* bytes, uint64_t length, const char magic[4],
                        int32_t tensor_count, cov_sparse_format format) {
  if (length < kHeaderBytes) {
    return refuse(COV_SPARSE_WRONG_SIZE, "%" PRIu64 " bytes are less than a header", length);
  }
  if (cov_status status = given("the bytes of an update", bytes); status.code != COV_OK)
    return status;
  if (std::memcmp(bytes, magic, 4) != 0) {
    return refuse(COV_SPARSE_WRONG_MAGIC, "the bytes do not begin with %.4s", magic);
  }
  if (bytes[4] != format.mode || bytes[5] != 1) {
    return refuse(COV_SPARSE_WRONG_MODE, "mode %d, chunking %d; agreed are %d and 1", bytes[4],
                  bytes[5], format.mode);
  }
  if (const int32_t keep = load_u16(bytes + 6); keep != format.keep_per_chunk) {
    return refuse(COV_SPARSE_WRONG_KEEP, "%d kept per chunk; agreed are %d", keep,
                  format.keep_per_chunk);
  }
  if (const uint32_t count = load_u32(bytes + 8); count != static_cast<uint32_t>(tensor_count)) {
    return refuse(COV_SPARSE_WRONG_TENSOR_COUNT, "%u tensors; the model has %d", count,
                  tensor_count);
  }
  return cov_ok();
}

cov_status check_body_frame(const uint8_t* body, uint64_t body_bytes,
                            const cov_tensor_info* tensors, int32_t tensor_count,
                            cov_sparse_format format) {
  uint64_t wanted = 0;
  if (cov_status status = cov_sparse_size(tensors, tensor_count, format, &wanted, nullptr);
      status.code != COV_OK) {
    return status;
  }
  if (cov_status status = check_header(body, body_bytes, "CVS1", tensor_count, format);
      status.code != COV_OK) {
    return status;
  }
  if (body_bytes != wanted) {
    return refuse(COV_SPARSE_WRONG_SIZE, "%" PRIu64 " bytes; this model's updates have %" PRIu64,
                  body_bytes, wanted);
  }
  return cov_ok();
}

int32_t read_tensor_header(const uint8_t* bytes, cov_sparse_format format, TensorHeader& header) {
  header.top_scale = static_cast<int16_t>(load_u16(bytes));
  if (header.top_scale > kTopScaleMax || header.top_scale < -kTopScaleMax)
    return COV_SPARSE_SCALE_OUT_OF_BOUNDS;
  if (format.mode != 2) return COV_OK;
  // The header of a tensor that sends nothing; that nothing follows is checked after its chunks.
  if (header.top_scale == 0 && bytes[2] == 0 && bytes[3] == 0) return COV_OK;
  header.levels.low = kLevelBias - bytes[2];
  header.levels.high = bytes[3] - kLevelBias;
  if (header.levels.low > header.levels.high) return COV_SPARSE_LEVELS_OUT_OF_ORDER;
  return COV_OK;
}

cov_status refuse_tensor(int32_t code, const cov_tensor_info& tensor, uint64_t chunk) {
  return refuse(code, "tensor %s, chunk %" PRIu64 ": %s", tensor.name, chunk,
                cov_sparse_code_name(code));
}

}  // namespace covenant::sparse

using namespace covenant::sparse;
using covenant::unless_empty;

cov_status cov_sparse_check(const uint8_t* body, uint64_t body_bytes,
                            const cov_tensor_info* tensors, int32_t tensor_count,
                            cov_sparse_format format, uint64_t* kept) {
  uint64_t count = 0;
  const cov_status status = visit_chunks<false>(
      body, body_bytes, tensors, tensor_count, format,
      [&](int32_t, uint64_t, const Chunk& chunk) { count += static_cast<uint64_t>(chunk.kept); });
  if (kept != nullptr) *kept = status.code == COV_OK ? count : 0;
  return status;
}

cov_status cov_sparse_decode(const uint8_t* body, uint64_t body_bytes,
                             const cov_tensor_info* tensors, int32_t tensor_count,
                             cov_sparse_format format, uint32_t* indices, float* values,
                             uint64_t capacity, uint64_t* kept) {
  if (cov_status status = covenant::given("kept", kept); status.code != COV_OK)
    return status;
  uint64_t wanted = 0;
  *kept = 0;
  if (cov_status status =
          cov_sparse_check(body, body_bytes, tensors, tensor_count, format, &wanted);
      status.code != COV_OK) {
    return status;
  }
  if (capacity < wanted) {
    return cov_error(COV_INVALID_ARGUMENT, "room for %" PRIu64 " values; there are %" PRIu64,
                     capacity, wanted);
  }
  const auto room = static_cast<int64_t>(wanted);
  if (cov_status status = covenant::given("indices and values", unless_empty(indices, room),
                                          unless_empty(values, room));
      status.code != COV_OK) {
    return status;
  }
  uint64_t at = 0;
  const cov_status status = visit_chunks(body, body_bytes, tensors, tensor_count, format,
                                         [&](int32_t, uint64_t first, const Chunk& chunk) {
                                           for (int32_t j = 0; j < chunk.kept; ++j, ++at) {
                                             indices[at] =
                                                 static_cast<uint32_t>(first + chunk.indices[j]);
                                             values[at] = chunk.values[j];
                                           }
                                         });
  *kept = at;
  return status;
}

cov_status cov_sparse_apply(float* parameters, uint64_t length, const uint8_t* body,
                            uint64_t body_bytes, const cov_tensor_info* tensors,
                            int32_t tensor_count, cov_sparse_format format, float scale) {
  const auto floats = static_cast<int64_t>(length);
  if (cov_status status = covenant::given("parameters", unless_empty(parameters, floats));
      status.code != COV_OK) {
    return status;
  }
  if (!std::isfinite(scale)) return cov_error(COV_INVALID_ARGUMENT, "scale is not finite");
  if (cov_status status = check_tensors(tensors, tensor_count, length); status.code != COV_OK)
    return status;
  if (cov_status status =
          cov_sparse_check(body, body_bytes, tensors, tensor_count, format, nullptr);
      status.code != COV_OK) {
    return status;
  }
  return visit_chunks(body, body_bytes, tensors, tensor_count, format,
                      [&](int32_t, uint64_t first, const Chunk& chunk) {
                        for (int32_t j = 0; j < chunk.kept; ++j) {
                          float& theta = parameters[first + chunk.indices[j]];
                          const float step = scale * chunk.values[j];
                          theta = theta - step;
                        }
                      });
}
