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
// Rows that go through several stages together: of fewer, products wait for their weights.
constexpr int64_t kPieceRows = 256;

// Rows that a step of one row for each sequence is filled up to, so that few graphs serve every number of
// sequences: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...
int64_t filled_rows(int64_t rows) {
  const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
  return power >= 4 && rows <= power / 4 * 3 ? power / 4 * 3 : power;
}

}  // namespace

// ---- stage -------------------------------------------------------------------------------------

DecoderStage::DecoderStage(const GenerationWeights& weights, const DevicePages& pages, const DecoderSize& size)
    : pages_(pages),
      layers_(weights, size.rows),
      lists_(weights.model().device(), size),
      counts_(size.graphs),
      graphs_(weights.model().device(), weights.model().graph_counts()) {}

void DecoderStage::pack(const StepShape& shape, const DecoderRows& rows, bool fill) {
  if (rope_ != model().cosine()) graphs_.clear();
  rope_ = model().cosine();
  lists_.pack(shape, rows, pages_, fill);
}

void DecoderStage::forward(const StepShape& shape, int64_t first, int64_t count) {
  const Stream stream = model().stream();
  const int32_t* const positions = lists_.positions(shape) + first;
  PagedRows paged = {model().layout().attention, pages_.bf16(), 0, lists_.pages(),
                     lists_.first_pages(shape) + first, positions, count};
  layers_.forward(first, positions, count, [&](int64_t layer, const float* qkv, float* out) {
    paged.offset = layer * pages_.layer_elements();
    cache_append(stream, paged, qkv);
    attention_cached(stream, paged, qkv, shape.longest, out);
  });
}

void DecoderStage::run(const StepShape& shape, bool graph, const std::function<void()>& queue) {
  if (graph)
    graphs_.run({shape.rows, shape.longest, shape.hidden}, queue);
  else if (counts_)
    graphs_.run_plain(queue);
  else
    queue();
}

// ---- decoder -----------------------------------------------------------------------------------

DeviceDecoder::DeviceDecoder(const Stages& stages, const StageWeights& weights, const StagePages& pages,
                             const DecoderSize& size)
    : link_(stages.link()),
      size_(size),
      vocab_(stages.shape().vocab_size),
      width_(stages.shape().hidden_size),
      logit_rows_(std::min(size.drawn, std::max(kLogits / vocab_, kLogitRowsMin))) {
  stages.each([&](Model&, size_t s) {
    stages_.push_back(std::make_unique<DecoderStage>(weights.at(s), pages.at(s), size));
  });
  Device& device = last().model().device();
  device.activate();
  const auto floats = [&](int64_t count, Buffer<float>& buffer, PinnedBuffer& pinned) {
    buffer = Buffer<float>(device, static_cast<uint64_t>(count));
    return static_cast<float*>(pinned.reserve(buffer.bytes()));
  };
  host_logits_ = floats(logit_rows_ * vocab_, logits_, pinned_logits_);
  host_hidden_ = floats(logit_rows_ * width_, hidden_, pinned_hidden_);
  computed_ = std::make_unique<Event>();
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
  const bool decode =
      size_.graphs && last().model().graphs && rows.count() == rows.drawn_count();
  shape_ = shape_of(rows, decode);
  const int64_t piece = stages_.size() == 1 || decode ? shape_.rows : kPieceRows;
  for (const auto& stage : stages_) {
    stage->model().device().activate();
    stage->pack(shape_, rows, decode);
  }
  if (remote_embedding()) embed_from_last(shape_);
  for (int64_t first = 0; first < shape_.rows; first += piece) {
    const int64_t count = std::min(piece, shape_.rows - first);
    for (size_t s = 0; s < stages_.size(); ++s) {
      stages_[s]->model().device().activate();
      stages_[s]->run(shape_, decode, [&] { queue(s, shape_, first, count); });
      if (s + 1 < stages_.size()) carry(s, s + 1, first, count);
    }
  }
  download(shape_, 0, std::min(rows.drawn_count(), logit_rows_));
}

void DeviceDecoder::embed_from_last(const StepShape& shape) {
  last().model().device().activate();
  last().upload(shape);
  last().embed(shape);
  carry(stages_.size() - 1, 0, 0, shape.rows);
}

void DeviceDecoder::queue(size_t s, const StepShape& shape, int64_t first, int64_t count) {
  DecoderStage& stage = *stages_[s];
  const bool is_last = s + 1 == stages_.size();
  if (first == 0 && !(is_last && remote_embedding())) stage.upload(shape);
  if (first == 0 && s == 0 && !remote_embedding()) stage.embed(shape);
  stage.forward(shape, first, count);
  if (is_last && first + count == shape.rows && shape.drawn > 0) head(shape, 0, shape.drawn);
}

void DeviceDecoder::carry(size_t from, size_t to, int64_t first, int64_t count) {
  link_->carry(from, stages_[from]->layers().x() + first * width_, to,
               stages_[to]->layers().x() + first * width_, static_cast<uint64_t>(count * width_));
}

void DeviceDecoder::head(const StepShape& shape, int64_t first, int64_t count) {
  const int32_t* const drawn = last().lists().drawn(shape) + first;
  GenerationLayers& layers = last().layers();
  layers.logits(drawn, count, logits_.data());
  if (shape.hidden) embed(last().model().stream(), layers.x(), drawn, count, width_, hidden_.data());
}

// When the last stage is done, so are the others.
void DeviceDecoder::download(const StepShape& shape, int64_t first, int64_t count) {
  Device& device = last().model().device();
  device.activate();
  const auto fetch = [&](float* to, const Buffer<float>& from, int64_t width) {
    if (count > 0) device.download(to, from.data(), static_cast<uint64_t>(count * width) * sizeof(float));
  };
  fetch(host_logits_, logits_, vocab_);
  if (shape.hidden) fetch(host_hidden_, hidden_, width_);
  computed_->record(device.stream());
  first_ = first;
}

const float* DeviceDecoder::logits(int64_t first, int64_t count) {
  if (first != first_) {
    last().model().device().activate();
    head(shape_, first, count);
    download(shape_, first, count);
    finish();
  }
  return host_logits_;
}

}  // namespace covenant::cuda
