#include "engine/decoder.cuh"

#include <algorithm>
#include <bit>

#include "engine/embedding.cuh"

namespace covenant::cuda {
namespace {

// Scores of the longest sequence lie in shared memory, whose size is an argument of the launch, and so is the
// length of page tables: their bound grows by so many positions, so that the graphs of that many tokens are the
// same.
constexpr int64_t kPositionsEach = 1024;
constexpr int64_t kLogits = int64_t{32} << 20;  // on the device and the host at once
constexpr int64_t kLogitRowsMin = 8;

// Rows that a step of one row for each sequence is filled up to, so that few graphs serve every number of
// sequences: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...
int64_t filled_rows(int64_t rows) {
  const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
  return power >= 4 && rows <= power / 4 * 3 ? power / 4 * 3 : power;
}

uint64_t list_bytes(int64_t pages, int64_t rows, int64_t drawn) {
  return static_cast<uint64_t>(pages) * sizeof(void*) +
         static_cast<uint64_t>(3 * rows + drawn) * sizeof(int32_t);
}

}  // namespace

int64_t pages_for(int64_t positions) { return (positions + kPagePositions - 1) / kPagePositions; }

// ---- lists -------------------------------------------------------------------------------------

StepLists::StepLists(Device& device, const DecoderSize& size)
    : device_(device, list_bytes(size.pages, size.rows, size.drawn)),
      host_(static_cast<char*>(pinned_.reserve(device_.bytes()))) {}

// With `fill`, the table of each sequence has the same length. Rows that fill a step up repeat the first one: they
// write the same keys and values to the same place, and nobody reads what becomes of them.
void StepLists::pack(const StepShape& shape, const DecoderRows& rows, const DevicePages& pages, bool fill) {
  auto* const addresses = reinterpret_cast<void**>(host_);
  auto* const tokens = reinterpret_cast<int32_t*>(addresses + shape.pages);
  int32_t* const first = tokens + 2 * shape.rows;
  int64_t next = 0;
  for (const DecoderSegment& segment : rows.segments) {
    const int64_t count = pages_for(segment.start + segment.count);
    std::fill_n(first + segment.row, segment.count, static_cast<int32_t>(next));
    for (int64_t i = 0; i < count; ++i)
      addresses[next + i] = pages.data(segment.pages->pages()[static_cast<size_t>(i)]);
    next += fill ? pages_for(shape.longest) : count;
  }
  const auto put = [](const auto& list, int32_t* to, int64_t count) {
    int32_t* const end = std::transform(list.begin(), list.end(), to,
                                        [](auto value) { return static_cast<int32_t>(value); });
    if (end < to + count) std::fill(end, to + count, *to);
  };
  put(rows.tokens, tokens, shape.rows);
  put(rows.positions, tokens + shape.rows, shape.rows);
  std::fill(first + rows.count(), first + shape.rows, 0);
  put(rows.drawn, first + shape.rows, shape.listed);
}

void StepLists::upload(Device& device, const StepShape& shape) const {
  device.upload(device_.data(), host_, list_bytes(shape.pages, shape.rows, shape.listed));
}

// ---- decoder -----------------------------------------------------------------------------------

DeviceDecoder::DeviceDecoder(const GenerationWeights& weights, const DevicePages& pages, const DecoderSize& size)
    : model_(weights.model()),
      pages_(pages),
      size_(size),
      logit_rows_(std::min(size.drawn, std::max(kLogits / model_.layout().vocab, kLogitRowsMin))),
      graphs_(model_.device(), model_.graph_counts()),
      layers_(weights, size.rows),
      lists_(model_.device(), size) {
  const Layout& l = model_.layout();
  const auto floats = [&](int64_t count, Buffer<float>& buffer, PinnedBuffer& pinned) {
    buffer = Buffer<float>(model_.device(), static_cast<uint64_t>(count));
    return static_cast<float*>(pinned.reserve(buffer.bytes()));
  };
  host_logits_ = floats(logit_rows_ * l.vocab, logits_, pinned_logits_);
  host_hidden_ = floats(logit_rows_ * l.d, hidden_, pinned_hidden_);
}

StepShape DeviceDecoder::shape_of(const DecoderRows& rows, bool decode) const {
  StepShape shape = {rows.count(), 0, rows.drawn_count(), 0, 0, rows.hidden};
  for (const DecoderSegment& segment : rows.segments) {
    shape.longest = std::max(shape.longest, segment.start + segment.count);
    shape.pages += pages_for(segment.start + segment.count);
  }
  shape.longest = std::min((shape.longest + kPositionsEach - 1) / kPositionsEach * kPositionsEach,
                           size_.positions);
  if (decode) {
    shape.rows = shape.listed = std::min(filled_rows(rows.count()), size_.drawn);
    shape.pages = shape.rows * pages_for(shape.longest);
  }
  shape.drawn = std::min(shape.listed, logit_rows_);
  return shape;
}

void DeviceDecoder::run(const DecoderRows& rows) {
  const bool decode = size_.graphs && model_.graphs && rows.count() == rows.drawn_count();
  shape_ = shape_of(rows, decode);
  if (rope_ != model_.cosine()) graphs_.clear();
  rope_ = model_.cosine();
  lists_.pack(shape_, rows, pages_, decode);
  if (decode)
    graphs_.run({shape_.rows, shape_.longest, shape_.hidden}, [&] { queue(shape_); });
  else if (size_.graphs)
    graphs_.run_plain([&] { queue(shape_); });
  else
    queue(shape_);
  download(shape_, 0, std::min(rows.drawn_count(), logit_rows_));
}

void DeviceDecoder::queue(const StepShape& shape) {
  const Stream stream = model_.stream();
  const int64_t rows = shape.rows;
  const int32_t* const positions = lists_.positions(shape);
  lists_.upload(model_.device(), shape);
  layers_.embed(lists_.tokens(shape), rows);
  PagedRows paged = {model_.layout().attention, pages_.bf16(), 0, lists_.pages(), lists_.first_pages(shape),
                     positions, rows};
  layers_.forward(positions, rows, [&](int64_t layer, const float* qkv, float* out) {
    paged.offset = layer * pages_.layer_elements();
    cache_append(stream, paged, qkv);
    attention_cached(stream, paged, qkv, shape.longest, out);
  });
  if (shape.drawn > 0) head(shape, 0, shape.drawn);
}

void DeviceDecoder::head(const StepShape& shape, int64_t first, int64_t count) {
  const int32_t* const drawn = lists_.drawn(shape) + first;
  layers_.logits(drawn, count, logits_.data());
  if (shape.hidden)
    cuda::embed(model_.stream(), layers_.x(), drawn, count, model_.layout().d, hidden_.data());
}

// Waits.
void DeviceDecoder::download(const StepShape& shape, int64_t first, int64_t count) {
  Device& device = model_.device();
  const Layout& l = model_.layout();
  const auto fetch = [&](float* to, const Buffer<float>& from, int64_t width) {
    if (count > 0) device.download(to, from.data(), static_cast<uint64_t>(count * width) * sizeof(float));
  };
  fetch(host_logits_, logits_, l.vocab);
  if (shape.hidden) fetch(host_hidden_, hidden_, l.d);
  device.finish();
  first_ = first;
}

const float* DeviceDecoder::logits(int64_t first, int64_t count) {
  if (first != first_) {
    head(shape_, first, count);
    download(shape_, first, count);
  }
  return host_logits_;
}

}  // namespace covenant::cuda
