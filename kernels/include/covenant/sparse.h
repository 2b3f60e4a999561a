// covenant.sparse.v1: compressing, checking, merging and applying pseudo-gradient updates.
//
// Tier A: every call here has the same bits on every machine, CPU path and thread count. All
// arithmetic is integer or IEEE round-to-nearest (fp32, and fp64 where said) in a fixed order.
//
// Errors: COV_INVALID_ARGUMENT for tables, formats and lengths that can never be valid, a
// cov_sparse_code for bytes that are refused and for values that cannot be encoded,
// COV_OUT_OF_MEMORY. Nothing is kept between calls, which may run at the same time.
//
// ---- The body of an update -----------------------------------------------------------------
//
// Integers are little-endian; bits fill a byte from the least significant one; each bit field below
// starts on a byte and its unused trailing bits are zero. k = keep_per_chunk.
//
//   header, 12 bytes:
//     "CVS1" · u8 mode (2 or 1 bits per value) · u8 chunking (1: flat4096) · u16 k · u32 tensors
//   per tensor, in table order:
//     tensor header: i16 top scale · in 2-bit mode also u8 low code · u8 high code
//     per chunk of n consecutive values (4096, the last one shorter), which keeps
//     m = max(1, floor(k·n / 4096)) of them:
//       u8 scale code
//       low bits       6·m bits: index mod 64 of each kept value, indices ascending
//       upper bitmap   m + ceil(n / 64) bits: bit (index div 64) + j is set for the j-th kept
//                      value (Elias-Fano)
//       values         2-bit mode, 2·m bits: bit 2j = sign (1: negative), bit 2j + 1 = level
//                      (1: high, 0: low); 1-bit mode, m bits: sign
//
// A full chunk at k = 64 takes 1 + 48 + 16 + 16 = 81 bytes in 2-bit mode and 73 in 1-bit mode,
// against 16,384 in fp32.
//
// Scales and levels are logarithmic, so that a value is a table entry times a power of two, without
// any rounding:
//   L = top scale - 255 + scale code            chunk scale 2^(L/16)
//   low = 8 - low code, high = high code - 8    levels 2^(low/32), 2^(high/32)
//   value = ±P(2·L + level); in 1-bit mode level = 0
//   P(z) = fp32 nearest to 2^((z mod 32) / 32), times 2^(z div 32)
// Scale code 0 marks a chunk that sends nothing; the rest of its bytes are zero. A tensor that
// sends nothing has an all-zero header; any other has a chunk with code 255 and a top scale from
// -1600 to 1600. low <= high, and when they are equal no value is marked high. So every accepted
// body has one meaning, and every meaning has one body.
//
// ---- The choice of the encoder -------------------------------------------------------------
//
//   a = fma(beta, e, base - current): error feedback plus pseudo-gradient, fp32.
//   Kept: the m largest |a| of a chunk, equal magnitudes by lowest index. A chunk with fewer values
//     that are not zero sends zeros as well; what that adds comes back through the error feedback.
//   L = round(16·log2(mean of the kept |a|)); the mean sums mantissas, cut to the exponent of the
//     largest, as integers.
//   Top scale = largest L of the tensor; a chunk more than 254 below it, or below -1600, sends
//     nothing.
//   Levels: the two-level quantiser with the least squared error (Lloyd-Max) for the kept
//     |a| / 2^(L/16) of a sample of the tensor's chunks, found exactly on a histogram of 512 bins of
//     1/32 octave (fp64 sums in ascending order) and rounded to 1/32 octave. In the sample are
//     chunks 0, s, 2s, ... with s = max(1, floor(chunks / 32)), without those more than 254 below
//     the largest L among them; both levels are 0 when it is empty. So all other chunks are
//     compressed in one pass over memory.
//   A value is high if |a| > (low level + high level) / 2 of its chunk.
//   e = a - value where a value is sent, else a.
#ifndef COVENANT_SPARSE_H
#define COVENANT_SPARSE_H

#include <stdint.h>

#include "covenant/status.h"
#include "covenant/tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COV_SPARSE_CHUNK 4096
#define COV_SPARSE_KEEP_MAX 4096
#define COV_SPARSE_PEERS_MAX 4096

// What is wrong with bytes that a decoder refuses, or with values that cannot be encoded: codes of
// cov_status beside those of status.h. cov_sparse_code_name knows both.
typedef enum cov_sparse_code {
  COV_SPARSE_WRONG_MAGIC = 100,          // not this format, or not this version
  COV_SPARSE_WRONG_MODE = 101,           // other bits per value or chunking than agreed
  COV_SPARSE_WRONG_KEEP = 102,           // other keep_per_chunk than agreed
  COV_SPARSE_WRONG_TENSOR_COUNT = 103,   // made for another model
  COV_SPARSE_WRONG_SIZE = 104,           // longer or shorter than its contents say
  COV_SPARSE_SCALE_OUT_OF_BOUNDS = 105,  // a scale no encoder writes
  COV_SPARSE_LEVELS_OUT_OF_ORDER = 106,  // low level above the high one
  COV_SPARSE_BITMAP_INVALID = 107,       // not as many set bits as kept values
  COV_SPARSE_INDEX_OUT_OF_RANGE = 108,   // an index past the end of its chunk
  COV_SPARSE_INDEX_NOT_ASCENDING = 109,  // repeated or unsorted indices
  COV_SPARSE_TRAILING_BITS = 110,        // padding that is not zero
  COV_SPARSE_NOT_CANONICAL = 111,        // a second spelling of something that has another one
  COV_SPARSE_NON_FINITE = 112,           // NaN or infinity in base, current or error feedback
  COV_SPARSE_MAGNITUDE_TOO_LARGE = 113,  // kept values around or above 2^100
} cov_sparse_code;

// Stable upper-case name of a status code, e.g. "SPARSE_WRONG_SIZE".
const char* cov_sparse_code_name(int32_t code);

// How a run compresses. mode: 2 or 1 bits per value; keep_per_chunk: 1..4096.
typedef struct cov_sparse_format {
  int32_t mode;
  int32_t keep_per_chunk;
} cov_sparse_format;

// Bytes that the library allocated; free with cov_bytes_free, which accepts an empty one.
typedef struct cov_bytes {
  uint8_t* data;
  uint64_t length;
} cov_bytes;
void cov_bytes_free(cov_bytes* bytes);

// Exact size of every body for this table, and the number of values it can hold. Tensors must be in
// ascending order of offset without overlap and end below 2^32 - 1 floats (COV_INVALID_ARGUMENT
// otherwise).
cov_status cov_sparse_size(const cov_tensor_info* tensors, int32_t tensor_count,
                           cov_sparse_format format, uint64_t* body_bytes, uint64_t* kept_max);

typedef struct cov_sparse_source {
  const float* base;      // theta, the shared parameters at the start of the round
  const float* current;   // theta_r, after the inner steps
  float* error_feedback;  // e, updated in place
  uint64_t length;        // floats in each of the three
  float error_decay;      // beta, in [0, 1]
} cov_sparse_source;

// One pass over the parameters. threads 0: cov_default_threads. body must have cov_sparse_size
// bytes. COV_SPARSE_NON_FINITE and COV_SPARSE_MAGNITUDE_TOO_LARGE name the tensor and leave
// error_feedback partly updated: reload it from saved state.
cov_status cov_sparse_compress(const cov_sparse_source* source, const cov_tensor_info* tensors,
                               int32_t tensor_count, cov_sparse_format format, int32_t threads,
                               uint8_t* body, uint64_t body_bytes);

// Complete validation: every rule of the format above. Allocates nothing. *kept is the number of
// values sent.
cov_status cov_sparse_check(const uint8_t* body, uint64_t body_bytes,
                            const cov_tensor_info* tensors, int32_t tensor_count,
                            cov_sparse_format format, uint64_t* kept);

// Validates, then writes the kept values: flat indices (offset + index), ascending, and their
// values. capacity must be at least *kept of cov_sparse_check.
cov_status cov_sparse_decode(const uint8_t* body, uint64_t body_bytes,
                             const cov_tensor_info* tensors, int32_t tensor_count,
                             cov_sparse_format format, uint32_t* indices, float* values,
                             uint64_t capacity, uint64_t* kept);

// Validates, then theta <- theta - scale·D at the sent coordinates: fp32 product, then fp32
// subtraction.
cov_status cov_sparse_apply(float* parameters, uint64_t length, const uint8_t* body,
                            uint64_t body_bytes, const cov_tensor_info* tensors,
                            int32_t tensor_count, cov_sparse_format format, float scale);

// ---- Packed for transport ------------------------------------------------------------------
//
// The same update in fewer bytes: entropy-coded, exact. Whatever works with an update works on its
// body; a body has exactly one packed form and every accepted packed form is that of one body.
//
//   header, 12 bytes: "CVP1", then as in the body
//   per block of COV_PACKED_BLOCK chunks, counted through all tensors, the last one shorter:
//     u32 length of its code
//   the codes of the blocks, each by itself, of a binary range coder with adaptive probabilities:
//     before a tensor's first chunk: its header, bits that are not modelled
//     per chunk:
//       scale code: difference from the mean of the two before (255 at the start of a block),
//         rounded down: zero or not, sign, Elias-gamma code, all bits modelled
//       unless it is 0, per kept value:
//         distance d >= 1 from the value before (the first: from the place before the chunk):
//           e = floor(log2 d) as four bits, given e of the value before; then the e bits below the
//           leading one, the upper three modelled given e
//         sign, not modelled
//         in 2-bit mode the level, modelled
//
// Probabilities have 22 bits, start at 1/2 and move by 2 / (2·uses + 3) of the way, uses <= 254.

#define COV_PACKED_BLOCK 512

// Validates the body, then packs it. `packed` is allocated. threads 0: cov_default_threads.
cov_status cov_sparse_pack(const uint8_t* body, uint64_t body_bytes, const cov_tensor_info* tensors,
                           int32_t tensor_count, cov_sparse_format format, int32_t threads,
                           cov_bytes* packed);

// The body again, cov_sparse_size bytes, validated as by cov_sparse_check. Bytes that are not the
// packed form of an update are refused (COV_SPARSE_*: COV_SPARSE_WRONG_SIZE and
// COV_SPARSE_NOT_CANONICAL where the code itself is wrong); `body` is then undefined.
cov_status cov_sparse_unpack(const uint8_t* packed, uint64_t packed_bytes,
                             const cov_tensor_info* tensors, int32_t tensor_count,
                             cov_sparse_format format, int32_t threads, uint8_t* body,
                             uint64_t body_bytes);

// ---- Merging -------------------------------------------------------------------------------
//
// Peers in the order given; those of weight 0 are checked and otherwise as if absent. Per tensor:
//   clip: n_r = sqrt(sum over the magnitudes v in D_r, ascending, of count(v)·v²) in fp64, each
//     product and sum rounded (v² is exact); median = the lower middle of the n_r; where
//     n_r > median, D_r is multiplied by f_r = fp32(median / n_r), one fp32 rounding each
//   per coordinate, fp32, in peer order: s = sum of w_r·(f_r·D_r), product and sum each rounded
//   contributors: A = s / sum of w_r over the peers that sent the coordinate
//   all: A = s / sum of all w_r
// A coordinate is part of the merged update if any peer of weight > 0 sent it, even when the values
// cancel.
//
// Merged update:
//   header, 12 bytes: "CVM1" · u8 rule · u8 clipped · u16 peers of weight > 0 · u32 tensors
//   per chunk of n values: u16 m, the number of coordinates; when m > 0 their positions, then
//   m fp32 values. Positions are coded in the smaller of two ways, known from m and n:
//     Elias-Fano with b = floor(log2(n / m)) low bits: b·m bits, then m + ((n - 1) >> b) bits,
//       each field filled up to a byte; taken when equal
//     a bitmap of n bits

typedef enum cov_merge_rule { COV_MERGE_CONTRIBUTORS = 0, COV_MERGE_ALL = 1 } cov_merge_rule;

typedef struct cov_merge_input {
  const uint8_t* const* bodies;  // `count` of each
  const uint64_t* body_bytes;
  const float* weights;  // finite, >= 0, not all zero
  int32_t count;         // 1..COV_SPARSE_PEERS_MAX
  int32_t rule;          // cov_merge_rule
  int32_t clip_to_median_norm;  // 1: clip as above
} cov_merge_input;

// Validates every body first (the message names the position of a refused one), then merges.
// `merged` is allocated.
cov_status cov_sparse_merge(const cov_merge_input* input, const cov_tensor_info* tensors,
                            int32_t tensor_count, cov_sparse_format format, int32_t threads,
                            cov_bytes* merged);

// cov_sparse_merge and cov_merged_apply (below) in one, with the same bits and refusals: for whoever
// has all updates and wants the parameters, not the merged bytes. Decodes, sums and applies chunk by
// chunk. Before a refusal no parameter is changed. threads 0: cov_default_threads.
cov_status cov_sparse_update(float* parameters, uint64_t length, const cov_merge_input* input,
                             const cov_tensor_info* tensors, int32_t tensor_count,
                             cov_sparse_format format, float rate, int32_t threads,
                             int32_t* skipped, int32_t* skipped_count);

// Complete validation of the layout; values may be non-finite (applying reports them). *kept:
// number of values.
cov_status cov_merged_check(const uint8_t* merged, uint64_t merged_bytes,
                            const cov_tensor_info* tensors, int32_t tensor_count, uint64_t* kept);

// Validates, then theta <- theta - rate·A: fp32 product, then fp32 subtraction. A tensor with a
// non-finite value in A is skipped and its position written to skipped (room for tensor_count);
// *skipped_count says how many.
cov_status cov_merged_apply(float* parameters, uint64_t length, const uint8_t* merged,
                            uint64_t merged_bytes, const cov_tensor_info* tensors,
                            int32_t tensor_count, float rate, int32_t* skipped,
                            int32_t* skipped_count);

#ifdef __cplusplus
}
#endif
#endif
