// Memory of the emulated devices.
#pragma once

#include <cstddef>

namespace covenant::emulation {

int device_count();  // COVENANT_EMULATED_DEVICES

// The functions below are called with the runtime's lock held.

size_t total_bytes();
size_t used_bytes(int device);
// Null when the device has not that much left. Filled with noise.
void* allocate(int device, size_t bytes);
// False when `pointer` is not the start of a block.
bool release(void* pointer, int* device);
// The device that owns [pointer, pointer + bytes), -1 when none does.
__attribute__((visibility("default"))) int owner(const void* pointer, size_t bytes);

// Opens memory of `device` only, or of all devices (-1), to whatever runs next.
__attribute__((visibility("default"))) void open_memory(int device);

}  // namespace covenant::emulation
