// Policy deltas of weights on the device. Tier A: the bytes of cov_delta_encode.
#pragma once

#include "codec/delta.h"
#include "runtime/device.h"

namespace covenant::cuda {

// Weights are device memory, deltas and roots are on the host. As the calls of covenant/delta.h.
void delta_root(Device& device, const uint16_t* weights, uint64_t count,
                uint8_t root[COV_HASH_BYTES]);
void delta_encode(Device& device, const uint16_t* base, const uint16_t* next, uint64_t count,
                  cov_bytes* delta);
void delta_apply(Device& device, const uint16_t* base, uint64_t count, const uint8_t* delta,
                 uint64_t delta_bytes, uint16_t* next);

// One chunk to code; `at` is where its code lies in device memory.
struct DeltaJob {
  uint64_t chunk;
  uint8_t* at;
  uint32_t bytes;  // encoder: room; decoder: of the code
  uint32_t raw;    // decoder: the code is the weights as they are
};

// changed[c] += weights of chunk c that differ.
void launch_delta_count(Stream stream, const uint16_t* base, const uint16_t* next, uint64_t count,
                        uint32_t* changed);
// sizes[i] = bytes of the code of job i, of which no more are written than there is room for.
void launch_delta_encode(Stream stream, const uint16_t* base, const uint16_t* next, uint64_t count,
                         const DeltaJob* jobs, uint32_t job_count, uint32_t* sizes);
// Turns the weights of chunks into the next ones. *first_bad becomes the least number of a chunk
// without a valid code; *changed counts weights.
void launch_delta_decode(Stream stream, uint16_t* weights, uint64_t count, const DeltaJob* jobs,
                         uint32_t job_count, unsigned long long* first_bad,
                         unsigned long long* changed);

}  // namespace covenant::cuda
