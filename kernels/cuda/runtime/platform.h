// What a .cu file includes first: the CUDA of nvcc, or the emulation when the C++ compiler builds it.
//
// Rules of the shared source: launches by COVENANT_LAUNCH; dynamic shared memory by
// COVENANT_DYNAMIC_SHARED; integer atomics only; no waiting for another block; nothing that only
// the hardware has (tensor cores, asynchronous copies) outside a header with an emulated form.
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

// Launches on a covenant::cuda::Stream; a fault of the launch is raised as Failure.
#define COVENANT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                          \
  do {                                                                                           \
    (kernel)<<<(grid), (block), (shared_bytes), static_cast<cudaStream_t>((stream).handle)>>>(   \
        __VA_ARGS__);                                                                            \
    ::covenant::cuda::check_launch(#kernel);                                                     \
  } while (0)

// Declares `name` as the block's dynamic shared memory, seen as `type`.
#define COVENANT_DYNAMIC_SHARED(type, name)                          \
  extern __shared__ __align__(128) unsigned char covenant_shared[];  \
  type* const name = reinterpret_cast<type*>(covenant_shared)

#else

#include "emulation/emulation.h"

#define COVENANT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                   \
  do {                                                                                    \
    ::covenant::emulation::launch((kernel), (grid), (block), (shared_bytes),              \
                                  (stream).handle, __VA_ARGS__);                          \
    ::covenant::cuda::check_launch(#kernel);                                              \
  } while (0)

#define COVENANT_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::covenant::emulation::dynamic_shared())

#endif

#include "runtime/device.h"
