// covenant.delta.v1: from one version of bf16 weights to the next, exact on bits (signed zeros and
// NaN included). Tier A: the same bytes on every machine, CPU path and thread count.
//
// Errors: COV_INVALID_ARGUMENT for more than COV_DELTA_WEIGHTS_MAX weights or a chunk beyond them, a
// cov_delta_code for bytes that are refused, COV_OUT_OF_MEMORY. Nothing is kept between calls, which
// may run at the same time. threads 0: cov_default_threads.
//
// Integers are little-endian. Weights are one flat array of `weight_count` bf16 bit patterns, cut
// into chunks of COV_DELTA_CHUNK consecutive weights, the last one shorter:
//
//   header, 84 bytes:
//     "CVD1" · u64 weight count · u64 changed weights · base root, 32 bytes · result root, 32 bytes
//   u32 per chunk: bytes of its code; 0: nothing changed; the highest bit: the code is the new
//     weights as they are
//   the codes of the chunks, in order
//
// A root is the Merkle root (hash.h) over the SHA-256 of the little-endian bytes of each chunk.
//
// The code of a chunk is one adaptive binary range code (as in LZMA: range 32 bits, bytes carried
// out of a 33-bit low end; probabilities of 22 bits that start at 1/2 and move by
// 1 / (n + 1.5) of the error, n = uses so far, at most 254). With x = exponent field of the old
// weight:
//   per block of 16 weights: does any change? Context: smallest x of the block, answer for the
//     block before. If so, per weight:
//   does it change? Context: x, answer for the weight before, whether one of the block did so far.
//   If it does, its step d != 0 between the places of old and new in the order of bf16 values
//   (place = bits xor 0xffff when negative, else bits xor 0x8000): whether negative (context: x and
//   sign of the weight), then k = floor(log2 |d|) in unary (context: x, position up to 16), then the
//   k lower bits of |d|, highest first (context: k, position, only for the first).
// Which weights change and by how much depends on their size, so that contexts by exponent are
// worth about a quarter of the bytes.
#ifndef COVENANT_DELTA_H
#define COVENANT_DELTA_H

#include <stdint.h>

#include "covenant/hash.h"
#include "covenant/sparse.h"
#include "covenant/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COV_DELTA_CHUNK (1u << 20)
#define COV_DELTA_HEADER_BYTES 84
#define COV_DELTA_WEIGHTS_MAX (1ull << 40)

// Why a delta is refused: codes of cov_status beside those of status.h.
typedef enum cov_delta_code {
  COV_DELTA_WRONG_MAGIC = 200,   // not this format, or not this version
  COV_DELTA_WRONG_COUNT = 201,   // made for another number of weights
  COV_DELTA_WRONG_SIZE = 202,    // longer or shorter than its contents say
  COV_DELTA_WRONG_BASE = 203,    // made from other weights than those given
  COV_DELTA_MALFORMED = 204,     // a code that no encoder writes
  COV_DELTA_WRONG_RESULT = 205,  // decodes, but not to the weights it names
} cov_delta_code;

// Stable upper-case name of a status code, e.g. "DELTA_WRONG_BASE"; knows those of sparse.h and
// status.h as well.
const char* cov_delta_code_name(int32_t code);

typedef struct cov_delta_info {
  uint64_t weight_count;
  uint64_t changed_count;
  uint64_t chunk_count;
  uint8_t base_root[COV_HASH_BYTES];
  uint8_t result_root[COV_HASH_BYTES];
} cov_delta_info;

// Root of `count` weights, as base_root and result_root.
cov_status cov_delta_root(const uint16_t* weights, uint64_t count, int32_t threads,
                          uint8_t root[COV_HASH_BYTES]);

// base and next: `count` weights each. `delta` is allocated (cov_bytes_free), never more than 2 bytes a
// weight and the header.
cov_status cov_delta_encode(const uint16_t* base, const uint16_t* next, uint64_t count,
                            int32_t threads, cov_bytes* delta);

// Reads the header and the table of chunks, from at least the first COV_DELTA_HEADER_BYTES of a
// delta. Allocates nothing. delta_bytes may be less than the whole: what is there is checked.
cov_status cov_delta_read(const uint8_t* delta, uint64_t delta_bytes, cov_delta_info* info);

// Refuses another base before it writes anything. `next` may be `base` or apart from it. After
// COV_DELTA_MALFORMED and COV_DELTA_WRONG_RESULT the contents of `next` are undefined.
cov_status cov_delta_apply(const uint16_t* base, uint64_t count, const uint8_t* delta,
                           uint64_t delta_bytes, int32_t threads, uint16_t* next);

// One chunk, for a consumer that receives a delta in pieces: `code` is what the table gives for
// chunk `chunk`, raw is its highest bit. base and next are whole arrays; roots are the caller's
// business (cov_delta_root).
cov_status cov_delta_apply_chunk(const uint16_t* base, uint64_t count, uint64_t chunk,
                                 const uint8_t* code, uint64_t code_bytes, int32_t raw,
                                 uint16_t* next, uint64_t* changed);

#ifdef __cplusplus
}
#endif
#endif
