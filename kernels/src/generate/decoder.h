// RowDecoder on the CPU, over a model's packed weights.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model.h"
#include "generate/page_memory.h"
#include "generate/row_decoder.h"
#include "generate/weights.h"

namespace covenant {

class Decoder final : public RowDecoder {
 public:
  Decoder(cov_model& model, const GenerationWeights& weights, const PageMemory& pages)
      : model_(model),
        weights_(weights),
        pages_(pages),
        head_elements_(pages.head_elements()),
        bf16_pages_(pages.bf16() ? 1 : 0) {}

  void run(const DecoderRows& rows) override;
  int64_t logit_rows() const override;
  const float* logits(int64_t first, int64_t count) override;
  const float* hidden(int64_t i) const override {
    return x_ + rows_->drawn[static_cast<size_t>(i)] * model_.layout.d;
  }

 private:
  // A segment of the rows under way, with the addresses of its pages.
  struct Part {
    int64_t row, count, start;
    void* const* pages;
    int64_t first_task;  // of attention
  };

  void locate(const DecoderRows& rows);
  void reserve(int64_t rows, int64_t longest);
  // y = RMSNorm(x), and its bytes where the weights are int8.
  void normalise(const float* gain, int64_t rows);
  void to_bytes(const float* x, int64_t rows, int64_t k);
  void multiply(const GenerationMatrix& w, const float* x, int64_t rows, const float* residual,
                float* out);
  void gate_up(const GenerationWeights::Layer& layer, int64_t rows);
  void store_keys(int64_t layer);
  template <typename T>
  void store_row(const Part& part, int64_t i, int64_t offset);
  void attend(int64_t layer);
  void attend_one(const Part& part, int64_t offset, int64_t first_kv, int64_t kv_count,
                  float* scratch);
  void attend_many(const Part& part, int64_t offset, int64_t head, int64_t first,
                   int64_t count, float* scratch);

  cov_model& model_;
  const GenerationWeights& weights_;
  const PageMemory& pages_;
  int64_t head_elements_;
  int bf16_pages_;
  Buffer<float> floats_, logits_, scratch_;
  Buffer<uint8_t> bytes_;
  int64_t capacity_ = 0, score_row_ = 0, scratch_size_ = 0;
  float *x_ = nullptr, *normed_ = nullptr, *qkv_ = nullptr, *attention_ = nullptr,
        *hidden_ = nullptr, *scales_ = nullptr;
  Int8Rows int8_ = {};
  // Of the rows under way.
  const DecoderRows* rows_ = nullptr;
  std::vector<void*> addresses_;
  std::vector<Part> parts_;
  int64_t attention_tasks_ = 0, attention_products_ = 0;
};

}  // namespace covenant
