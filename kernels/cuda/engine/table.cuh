// The engine's functions for the library's table.
#pragma once

#include "device/engine_table.h"

namespace covenant::cuda {

const device::EngineTable& engine_table();

}  // namespace covenant::cuda
