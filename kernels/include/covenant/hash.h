// SHA-256, and the Merkle root of a model's state. Tier A: the same bits on every machine.
//
// Errors: COV_INVALID_ARGUMENT (a tensor that ends beyond the buffer, or has neither one nor two
// dimensions), COV_OUT_OF_MEMORY. Nothing is kept between calls, which may run at the same time.
#ifndef COVENANT_HASH_H
#define COVENANT_HASH_H

#include <stdint.h>

#include "covenant/status.h"
#include "covenant/tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COV_HASH_BYTES 32
// Parameters are hashed in pieces, so that a disagreement can be located and pieces be hashed in
// parallel.
#define COV_STATE_PIECE_BYTES (1u << 20)

// FIPS 180-4. Uses the SHA instructions of the processor where there are any.
void cov_sha256(const void* data, uint64_t length, uint8_t digest[COV_HASH_BYTES]);

// Merkle root: leaf = SHA-256(0x00 · item), node = SHA-256(0x01 · left · right), an odd node moves
// up as it is; no items: SHA-256 of nothing. Here every item is a digest (count·32 bytes).
// COV_OUT_OF_MEMORY is the only failure.
cov_status cov_merkle_root(const uint8_t* items, uint64_t count, uint8_t root[COV_HASH_BYTES]);

// SHA-256 of the lines "name\tdim0xdim1\n" (one dimension: "name\tdim0\n"), in table order.
cov_status cov_tensor_table_root(const cov_tensor_info* tensors, int32_t tensor_count,
                                 uint8_t root[COV_HASH_BYTES]);

// Merkle root over [tensor table root, SHA-256 of each piece of at most 1 MiB of each tensor's
// little-endian fp32 bytes, in table order]. threads 0: cov_default_threads.
cov_status cov_state_root(const float* parameters, uint64_t length, const cov_tensor_info* tensors,
                          int32_t tensor_count, int32_t threads, uint8_t root[COV_HASH_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
