// The decoder's layers over rows of several sequences at once, keys and values in pages. Prefill,
// decoding and replay are this one pass; a row's result depends on its own sequence alone.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model.h"
#include "generate/pages.h"
#include "generate/weights.h"

namespace covenant {

// `count` rows at positions start .. start + count - 1 of one sequence, whose pages are reserved.
struct DecoderSegment {
  int64_t row, count, start;
  const PageTable* pages;
};

struct DecoderRows {
  std::vector<int32_t> tokens, positions;
  std::vector<DecoderSegment> segments;

  int64_t count() const { return static_cast<int64_t>(tokens.size()); }
  void clear() {
    tokens.clear();
    positions.clear();
    segments.clear();
  }
  // Appends `count` tokens of a sequence from position `start`.
  void add(const int32_t* token, int64_t count, int64_t start, const PageTable* pages);
};

class Decoder {
 public:
  Decoder(cov_model& model, const GenerationWeights& weights, const PagePool& pages)
      : model_(model),
        weights_(weights),
        head_elements_(pages.head_elements()),
        bf16_pages_(pages.bf16() ? 1 : 0) {}

  // Runs the layers; hidden(row) is then the input of the final norm. Throws Failure.
  void run(const DecoderRows& rows);
  const float* hidden(int64_t row) const { return x_ + row * model_.layout.d; }

  // Rows of logits that are computed together.
  int64_t logit_rows() const;
  // Logits (count, vocab) of rows given by index, count <= logit_rows(), until the next call.
  const float* logits(const int64_t* rows, int64_t count);

 private:
  void reserve(int64_t rows, int64_t longest);
  // y = RMSNorm(x), and its bytes where the weights are int8.
  void normalise(const float* gain, int64_t rows);
  void to_bytes(const float* x, int64_t rows, int64_t k);
  void multiply(const GenerationMatrix& w, const float* x, int64_t rows, const float* residual,
                float* out);
  void gate_up(const GenerationWeights::Layer& layer, int64_t rows);
  void store_keys(const DecoderRows& rows, int64_t layer);
  template <typename T>
  void store_row(const DecoderSegment& segment, int64_t i, int64_t offset);
  void attend(const DecoderRows& rows, int64_t layer);
  void attend_one(const DecoderSegment& segment, int64_t offset, int64_t first_kv, int64_t kv_count,
                  float* scratch);
  void attend_many(const DecoderSegment& segment, int64_t offset, int64_t head, int64_t first,
                   int64_t count, float* scratch);

  cov_model& model_;
  const GenerationWeights& weights_;
  int64_t head_elements_;
  int bf16_pages_;
  Buffer<float> floats_, logits_, scratch_;
  Buffer<uint8_t> bytes_;
  int64_t capacity_ = 0, score_row_ = 0, scratch_size_ = 0;
  float *x_ = nullptr, *normed_ = nullptr, *qkv_ = nullptr, *attention_ = nullptr,
        *hidden_ = nullptr, *scales_ = nullptr;
  Int8Rows int8_ = {};
};

}  // namespace covenant
