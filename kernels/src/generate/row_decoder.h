// Who computes the rows of a step: the decoder's layers over rows of several sequences at once, keys and
// values in pages. Prefill, decoding and replay are this one pass; a row's result depends on its own
// sequence alone.
#pragma once

#include <cstdint>
#include <vector>

#include "generate/pages.h"

namespace covenant {

// `count` rows at positions start .. start + count - 1 of one sequence, whose pages are reserved.
struct DecoderSegment {
  int64_t row, count, start;
  const PageTable* pages;
};

struct DecoderRows {
  std::vector<int32_t> tokens, positions;
  std::vector<DecoderSegment> segments;
  std::vector<int64_t> drawn;  // rows whose logits are wanted, ascending
  bool hidden = false;         // their hidden states are wanted as well

  int64_t count() const { return static_cast<int64_t>(tokens.size()); }
  int64_t drawn_count() const { return static_cast<int64_t>(drawn.size()); }
  void clear();
  // Appends `count` tokens of a sequence from position `start`.
  void add(const int32_t* token, int64_t count, int64_t start, const PageTable* pages);
};

class RowDecoder {
 public:
  virtual ~RowDecoder() = default;
  // Runs the layers, or begins to. The rows must stay until those of the next run. Throws Failure; keys and values
  // of these rows are undefined then.
  virtual void run(const DecoderRows& rows) = 0;
  // Waits for what was begun: before logits are asked for, and before the next run. Throws Failure.
  virtual void finish() {}
  // Drawn rows whose logits are given together.
  virtual int64_t logit_rows() const = 0;
  // Logits (count, vocab) of drawn rows from the first-th on, on the host until the next call;
  // count <= logit_rows(), and blocks follow each other from the first row on. Throws Failure.
  virtual const float* logits(int64_t first, int64_t count) = 0;
  // The input of the final norm of the i-th drawn row, which the last call of logits() covered.
  virtual const float* hidden(int64_t i) const = 0;
};

}  // namespace covenant
