// The long-lived generator as the CUDA library offers it.
#pragma once

#include "device/generator_table.h"

namespace covenant::cuda {

const device::GeneratorTable& generator_table();

}  // namespace covenant::cuda
