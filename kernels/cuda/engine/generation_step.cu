#include "engine/generation_step.cuh"

#include <algorithm>
#include <bit>

#include "engine/cache.cuh"
#include "engine/embedding.cuh"

namespace covenant::cuda {
namespace {

// Scores of the longest sequence lie in shared memory, whose size is an argument of the launch: its bound grows
// by so many positions, so that the graphs of that many tokens are the same.
constexpr int64_t kPositionsEach = 1024;

// Rows that a step of one row for each sequence is filled up to, so that few graphs serve every number of
// sequences: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...
int64_t filled_rows(int64_t rows) {
  const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
  return power >= 4 && rows <= power / 4 * 3 ? power / 4 * 3 : power;
}

template <typename T>
T* reserve(PinnedBuffer& buffer, int64_t count) {
  return static_cast<T*>(buffer.reserve(static_cast<uint64_t>(count) * sizeof(T)));
}

}  // namespace

GenerationStep::GenerationStep(Model& model, const GenerationSize& size)
    : model_(model), size_(size), graphs_(model.device(), model.graph_counts()) {
  Device& device = model.device();
  const Layout& l = model.layout();
  const auto floats = [&](int64_t count) {
    return Buffer<float>(device, static_cast<uint64_t>(count));
  };
  cache_ = floats(l.layers * size.sequences * size.positions *
                  CacheLayer{l.attention, nullptr, 0}.position_size());
  // A graph may have more rows than there are sequences left, but never more than there is room for.
  activations_.reserve(device, l, std::max(size.rows, size.sequences), true, true);
  logits_ = floats(size.sequences * l.vocab);
  host_logits_ = reserve<float>(pinned_logits_, size.sequences * l.vocab);
  const int64_t hidden = size.hidden ? size.sequences * l.d : 0;
  hidden_ = floats(hidden);
  host_hidden_ = size.hidden ? reserve<float>(pinned_hidden_, hidden) : nullptr;
  const int64_t lists = 3 * std::max(size.rows, size.sequences) + size.sequences;
  lists_ = Buffer<int32_t>(device, static_cast<uint64_t>(lists));
  host_lists_ = reserve<int32_t>(pinned_lists_, lists);
  model.prepare(size.positions);
}

void GenerationStep::clear() {
  for (std::vector<int32_t>* const list : {&tokens_, &positions_, &sequences_, &last_}) list->clear();
  longest_ = 0;
}

void GenerationStep::add_row(int32_t token, int32_t position, int32_t sequence) {
  tokens_.push_back(token);
  positions_.push_back(position);
  sequences_.push_back(sequence);
  longest_ = std::max<int64_t>(longest_, position + 1);
}

// Lists of the step one after the other. Rows that fill it up repeat the first one: they write the same keys and
// values to the same place, and nobody reads what becomes of them.
void GenerationStep::pack(const Shape& shape) {
  int32_t* to = host_lists_;
  const auto put = [&](const std::vector<int32_t>& list, int64_t count) {
    to = std::copy(list.begin(), list.end(), to);
    to = std::fill_n(to, count - static_cast<int64_t>(list.size()), list.front());
  };
  put(tokens_, shape.rows);
  put(positions_, shape.rows);
  put(sequences_, shape.rows);
  put(last_, shape.drawn);
}

void GenerationStep::queue(const Shape& shape) {
  Device& device = model_.device();
  const Layout& l = model_.layout();
  const int64_t rows = shape.rows, drawn = shape.drawn;
  const int32_t* const tokens = lists_.data();
  const int32_t* const positions = tokens + rows;
  const int32_t* const sequences = positions + rows;
  const int32_t* const last = sequences + rows;
  device.upload(lists_.data(), host_lists_, static_cast<uint64_t>(3 * rows + drawn) * sizeof(int32_t));
  embed(device.stream(), model_.state(COV_PARAMETERS), tokens, rows, l.d, activations_.layers[0].x);
  const auto attend = [&](int64_t layer, const float* qkv, float* out, float*) {
    float* const data =
        cache_.data() + layer * static_cast<int64_t>(cache_.count() / static_cast<uint64_t>(l.layers));
    const CacheLayer cache = {l.attention, data, size_.positions};
    cache_append(device.stream(), cache, qkv, sequences, positions, rows);
    attention_cached(device.stream(), cache, qkv, sequences, positions, rows, shape.longest, out);
  };
  model_.forward_layers(positions, rows, activations_, attend);
  model_.logits(activations_, last, drawn, logits_.data());
  if (size_.hidden) embed(device.stream(), activations_.last, last, drawn, l.d, hidden_.data());
}

void GenerationStep::run() {
  const auto drawn = static_cast<int64_t>(last_.size());
  const int64_t longest =
      std::min((longest_ + kPositionsEach - 1) / kPositionsEach * kPositionsEach, size_.positions);
  Shape shape = {rows(), drawn, longest};
  const bool decode = model_.graphs && rows() == drawn;
  if (decode) shape.rows = shape.drawn = std::min(filled_rows(drawn), size_.sequences);
  pack(shape);
  if (decode)
    graphs_.run({shape.rows, shape.longest}, [&] { queue(shape); });
  else
    graphs_.run_plain([&] { queue(shape); });
  Device& device = model_.device();
  const Layout& l = model_.layout();
  device.download(host_logits_, logits_.data(), static_cast<uint64_t>(drawn * l.vocab) * sizeof(float));
  if (size_.hidden)
    device.download(host_hidden_, hidden_.data(), static_cast<uint64_t>(drawn * l.d) * sizeof(float));
  device.finish();
}

}  // namespace covenant::cuda
