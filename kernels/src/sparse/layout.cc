#include "sparse/layout.h"

#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace covenant::sparse {

TensorSize tensor_size(uint64_t length, cov_sparse_format format) {
  TensorSize size{tensor_header_bytes(format), 0};
  const uint64_t full = length / COV_SPARSE_CHUNK;
  const ChunkLayout layout(COV_SPARSE_CHUNK, format);
  size.bytes += full * static_cast<uint64_t>(layout.bytes());
  size.kept += full * static_cast<uint64_t>(layout.kept);
  if (const uint64_t rest = length % COV_SPARSE_CHUNK; rest > 0) {
    const ChunkLayout last(static_cast<int32_t>(rest), format);
    size.bytes += static_cast<uint64_t>(last.bytes());
    size.kept += static_cast<uint64_t>(last.kept);
  }
  return size;
}

cov_status refuse(int32_t code, const char* format, ...) {
  cov_status status{};
  status.code = code;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(status.message, sizeof status.message, format, arguments);
  va_end(arguments);
  return status;
}

cov_status check_format(cov_sparse_format format) {
  if (format.mode != 1 && format.mode != 2) {
    return cov_error(COV_INVALID_ARGUMENT, "mode is %d bits per value; it can be 2 or 1",
                     format.mode);
  }
  if (format.keep_per_chunk < 1 || format.keep_per_chunk > COV_SPARSE_KEEP_MAX) {
    return cov_error(COV_INVALID_ARGUMENT, "keepPerChunk is %d; it can be 1 to %d",
                     format.keep_per_chunk, COV_SPARSE_KEEP_MAX);
  }
  return cov_ok();
}

cov_status check_tensors(const cov_tensor_info* tensors, int32_t tensor_count, uint64_t length) {
  if (tensor_count < 0 || (tensor_count > 0 && tensors == nullptr)) {
    return cov_error(COV_INVALID_ARGUMENT, "the tensor table is missing");
  }
  uint64_t end = 0;
  for (int32_t t = 0; t < tensor_count; ++t) {
    const cov_tensor_info& tensor = tensors[t];
    if (tensor.offset < end) {
      return cov_error(COV_INVALID_ARGUMENT,
                       "tensor %s starts at %" PRIu64 ", inside the one before it", tensor.name,
                       tensor.offset);
    }
    constexpr uint64_t limit = UINT32_MAX;
    if (tensor.offset > limit || tensor.length > limit - tensor.offset) {
      return cov_error(COV_INVALID_ARGUMENT, "tensor %s ends beyond 2^32 - 1 values", tensor.name);
    }
    end = tensor.offset + tensor.length;
    if (end > length) {
      return cov_error(COV_INVALID_ARGUMENT,
                       "tensor %s ends at %" PRIu64 ", but the buffer has %" PRIu64 " values",
                       tensor.name, end, length);
    }
  }
  return cov_ok();
}

}  // namespace covenant::sparse

using namespace covenant::sparse;

cov_status cov_sparse_size(const cov_tensor_info* tensors, int32_t tensor_count,
                           cov_sparse_format format, uint64_t* body_bytes, uint64_t* kept_max) {
  if (cov_status status = check_format(format); status.code != COV_OK) return status;
  if (cov_status status = check_tensors(tensors, tensor_count, UINT64_MAX); status.code != COV_OK)
    return status;
  uint64_t bytes = kHeaderBytes;
  uint64_t kept = 0;
  for (int32_t t = 0; t < tensor_count; ++t) {
    const TensorSize size = tensor_size(tensors[t].length, format);
    bytes += size.bytes;
    kept += size.kept;
  }
  if (body_bytes != nullptr) *body_bytes = bytes;
  if (kept_max != nullptr) *kept_max = kept;
  return cov_ok();
}

void cov_bytes_free(cov_bytes* bytes) {
  if (bytes == nullptr) return;
  std::free(bytes->data);
  *bytes = {nullptr, 0};
}

const char* cov_sparse_code_name(int32_t code) {
  switch (code) {
    case COV_SPARSE_WRONG_MAGIC:
      return "SPARSE_WRONG_MAGIC";
    case COV_SPARSE_WRONG_MODE:
      return "SPARSE_WRONG_MODE";
    case COV_SPARSE_WRONG_KEEP:
      return "SPARSE_WRONG_KEEP";
    case COV_SPARSE_WRONG_TENSOR_COUNT:
      return "SPARSE_WRONG_TENSOR_COUNT";
    case COV_SPARSE_WRONG_SIZE:
      return "SPARSE_WRONG_SIZE";
    case COV_SPARSE_SCALE_OUT_OF_BOUNDS:
      return "SPARSE_SCALE_OUT_OF_BOUNDS";
    case COV_SPARSE_LEVELS_OUT_OF_ORDER:
      return "SPARSE_LEVELS_OUT_OF_ORDER";
    case COV_SPARSE_BITMAP_INVALID:
      return "SPARSE_BITMAP_INVALID";
    case COV_SPARSE_INDEX_OUT_OF_RANGE:
      return "SPARSE_INDEX_OUT_OF_RANGE";
    case COV_SPARSE_INDEX_NOT_ASCENDING:
      return "SPARSE_INDEX_NOT_ASCENDING";
    case COV_SPARSE_TRAILING_BITS:
      return "SPARSE_TRAILING_BITS";
    case COV_SPARSE_NOT_CANONICAL:
      return "SPARSE_NOT_CANONICAL";
    case COV_SPARSE_NON_FINITE:
      return "SPARSE_NON_FINITE";
    case COV_SPARSE_MAGNITUDE_TOO_LARGE:
      return "SPARSE_MAGNITUDE_TOO_LARGE";
    default:
      return cov_code_name(code);
  }
}
