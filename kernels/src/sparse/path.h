// The functions of the CPU path in use (cov_cpu_path), so that forcing a path forces this code too.
#pragma once

#include "sparse/decode.h"
#include "sparse/encode.h"
#include "sparse/gather.h"
#include "sparse/sums.h"

namespace covenant::sparse {

struct SparsePath {
  GatherFunction gather;
  MagnitudeFunction magnitude;
  EncodeFunction encode64;  // of chunks that keep 64 values
  DecodeFunction decode64;
  CountHighFunction count_high;
  ApplyFunction apply;
  ApplyTallyFunction apply_tally;
};

const SparsePath& sparse_path();

}  // namespace covenant::sparse
