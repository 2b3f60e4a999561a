// What each thread of the test kernel found; the fields are explained in intrinsics.cu.
#pragma once

#include <cstdint>

#include "runtime/device.h"

struct ThreadReport {
  uint32_t position;
  uint32_t from_left;
  uint32_t from_right;
  uint32_t mirrored;
  uint32_t broadcast;
  uint32_t ballot;
  uint32_t sum;
  uint32_t largest;
  int32_t least;
  uint32_t same;
  uint32_t block_sum;
  uint32_t agreeing;
  uint32_t half;
  double prefix;
  uint32_t bits;
};

void launch_report(covenant::cuda::Stream stream, uint32_t blocks, uint32_t threads,
                   ThreadReport* reports, uint32_t* total);
