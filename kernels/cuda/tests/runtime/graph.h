// A kernel with an argument by value and one that it reads from memory.
#pragma once

#include <cstdint>

#include "runtime/device.h"

// sum[0] += argument + *from
void add_numbers(covenant::cuda::Device& device, int32_t argument, const int32_t* from, int32_t* sum);
