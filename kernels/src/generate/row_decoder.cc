#include "generate/row_decoder.h"

namespace covenant {

void DecoderRows::clear() {
  tokens.clear();
  positions.clear();
  segments.clear();
  drawn.clear();
  hidden = false;
}

void DecoderRows::add(const int32_t* token, int64_t added, int64_t start, const PageTable* pages) {
  segments.push_back({count(), added, start, pages});
  tokens.insert(tokens.end(), token, token + added);
  for (int64_t i = 0; i < added; ++i) positions.push_back(static_cast<int32_t>(start + i));
}

}  // namespace covenant
