// The codecs' entries in the table that the library exports.
#pragma once

#include "device/codec_table.h"

namespace covenant::cuda {

const device::CodecTable& codec_table();

}  // namespace covenant::cuda
