// Several devices' functions for the library's table.
#pragma once

#include "device/parallel_table.h"

namespace covenant::cuda {

const device::ParallelTable& parallel_table();

}  // namespace covenant::cuda
