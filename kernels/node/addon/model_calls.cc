#include "model_calls.h"

#include <algorithm>

namespace covenant_node {
namespace {

cov_status part_of(LearnedCalls& calls, int32_t which, uint64_t offset, uint64_t count,
                   float** data) {
  uint64_t length = 0;
  const cov_status status = calls.buffer(which, data, &length);
  if (status.code != COV_OK) return status;
  if (offset > length || count > length - offset)
    return cov_error(COV_OUT_OF_RANGE, "%llu floats from %llu pass the end of the buffer (%llu)",
                     static_cast<unsigned long long>(count),
                     static_cast<unsigned long long>(offset),
                     static_cast<unsigned long long>(length));
  *data += offset;
  return status;
}

}  // namespace

cov_status LearnedCalls::buffer(int32_t, float**, uint64_t*) {
  return cov_error(COV_UNSUPPORTED, "there are no views of a CUDA device's memory; read and write it");
}

cov_status LearnedCalls::read(int32_t which, uint64_t offset, uint64_t count, float* values) {
  float* data = nullptr;
  const cov_status status = part_of(*this, which, offset, count, &data);
  if (status.code == COV_OK) std::copy_n(data, count, values);
  return status;
}

cov_status LearnedCalls::write(int32_t which, uint64_t offset, uint64_t count,
                               const float* values) {
  float* data = nullptr;
  const cov_status status = part_of(*this, which, offset, count, &data);
  if (status.code == COV_OK) std::copy_n(values, count, data);
  return status;
}

}  // namespace covenant_node
