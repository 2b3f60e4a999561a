// The tensor table that the fuzz targets decode against.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "covenant/sparse.h"

namespace covenant_fuzz {

inline std::vector<cov_tensor_info> tables() {
  std::vector<cov_tensor_info> tensors;
  uint64_t offset = 0;
  for (const uint64_t length : {4096u + 200u, 100u, 0u, 64u, 7u}) {
    cov_tensor_info info{};
    info.name[0] = 't';
    info.rank = 1;
    info.dims[0] = static_cast<int64_t>(length);
    info.dims[1] = 1;
    info.offset = offset;
    info.length = length;
    offset += length;
    tensors.push_back(info);
  }
  return tensors;
}

}  // namespace covenant_fuzz
