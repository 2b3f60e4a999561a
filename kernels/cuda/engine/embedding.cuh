// Rows of the embedding, and their gradient. Tier A: the gradient of a token is summed by one block in
// the order of the rows, without atomics.
#pragma once

#include <vector>

#include "runtime/device.h"

namespace covenant::cuda {

// x (rows, d) = embedding (vocab, d)[tokens].
void embed(Stream stream, const float* embedding, const int32_t* tokens, int64_t rows, int64_t d,
           float* x);
// From an embedding in bf16.
void embed(Stream stream, const uint16_t* embedding, const int32_t* tokens, int64_t rows, int64_t d,
           float* x);

// The rows of each token that occurs: of buckets[i] they are rows[starts[i]] up to
// rows[starts[i + 1] - 1], ascending.
struct TokenBuckets {
  std::vector<int32_t> tokens, starts, rows;
  TokenBuckets(const int32_t* row_tokens, int64_t count);
};

// dembedding[tokens[i]] += sign dx[row] for the rows of each bucket, in order. All pointers on the device.
void embed_backward(Stream stream, const float* dx, const int32_t* tokens, const int32_t* starts,
                    const int32_t* rows, int64_t buckets, int64_t d, float* dembedding,
                    float sign = 1.0f);

}  // namespace covenant::cuda
