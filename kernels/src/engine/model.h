// State of one model and the passes over its layers. Buffers: rows are tokens, row-major.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <vector>

#include "core/thread_pool.h"
#include "covenant/model.h"
#include "engine/attention.h"
#include "engine/gemm.h"
#include "engine/memory.h"

namespace covenant {

// Sizes and offsets (floats) of the flat parameter buffer. q, k, v follow each other and so do gate
// and up, so each group is one matrix.
struct Layout {
  int64_t vocab, d, f, layers;
  AttentionShape attention;
  int64_t layer_size, first_layer, final_norm, head;
  Compute compute;  // format of the products with matrices

  Layout(const cov_model_shape& shape, Compute compute_format);
  int64_t qkv(int64_t layer) const { return first_layer + layer * layer_size; }
  int64_t o(int64_t layer) const { return qkv(layer) + attention.width() * d; }
  int64_t gate_up(int64_t layer) const { return o(layer) + d * d; }
  int64_t down(int64_t layer) const { return gate_up(layer) + 2 * f * d; }
  int64_t norm1(int64_t layer) const { return down(layer) + d * f; }
  int64_t norm2(int64_t layer) const { return norm1(layer) + d; }
};

// All matrices packed for one direction.
struct PackedWeights {
  Buffer<char> data;
  struct Layer {
    PackedMatrix qkv, o, gate_up, down;
  };
  std::vector<Layer> layers;
  PackedMatrix head;
};

// What the backward pass needs of one group of rows. With `shared` layers all entries alias one
// set.
struct Activations {
  struct Layer {
    float *x, *r1, *qkv, *att, *lse, *x2, *r2, *gate_up;
    Operand n1, n2, att_operand;  // att_operand is att itself in fp32
  };
  Buffer<float> data;
  std::vector<Layer> layers;
  float* last = nullptr;  // (rows, d): input of the final norm
  Operand hidden;         // (rows, f): scratch of the feed-forward part
  int64_t rows = 0;

  // Space for `count` rows; keeps its memory when it already fits.
  void reserve(Memory& memory, const Layout& layout, int64_t count, bool shared);

 private:
  int64_t capacity_ = 0;
  bool shared_ = false;
};

class GenerationWeights;

// One forward whose backward may follow.
struct KeptForward {
  bool valid = false;
  std::vector<Activations> groups;
  std::vector<int32_t> tokens, targets;
  int64_t sequences = 0, length = 0;
  float inverse_temperature = 1.0f;
};

}  // namespace covenant

struct cov_lora;

struct cov_model {
  cov_model(const cov_model_shape& model_shape, covenant::Compute compute_format, int threads,
            uint64_t memory_limit_bytes);

  cov_model_shape shape;
  covenant::Layout layout;
  covenant::Memory memory;
  covenant::ThreadPool pool;
  std::atomic<int32_t> references{1};
  covenant::Buffer<float> buffers[4];  // indexed by cov_buffer
  int64_t step_count = 0;

  covenant::PackedWeights forward_weights, backward_weights;
  covenant::Buffer<float> cosine, sine;  // (positions, dim / 2)
  int64_t rope_length = 0;
  covenant::Buffer<float> attention_scratch, work;
  covenant::Activations activations;
  covenant::KeptForward kept;
  // Packed weights that generate and replay leave for their next call.
  std::shared_ptr<covenant::GenerationWeights> generation_weights;
  cov_lora* lora = nullptr;       // adapters in use (engine/lora.h); the base is frozen meanwhile
  std::vector<cov_lora*> merged;  // reversibly, the last one on top

  const float* parameters() const { return buffers[COV_PARAMETERS].data(); }
  float eps() const { return static_cast<float>(shape.rms_norm_eps); }
  // Zeroed on first use.
  float* state(cov_buffer which);
};

namespace covenant {

// Packs all matrices from the current parameters, for these passes.
enum class Passes { kForward, kBackward, kBoth };
void pack_weights(cov_model& model, Passes passes);

// Makes the rotary table cover `length` positions.
void prepare_rope(cov_model& model, int64_t length);

// Embedding and all layers over activations.rows rows, which the segments share out; leaves
// activations.last.
void forward_layers(cov_model& model, const int32_t* tokens, const int32_t* positions,
                    const Segment* segments, int64_t segment_count, Activations& activations);

// From dx (rows, d), the gradient at activations.last, through all layers to the embedding.
// work: backward_work_size() floats.
void backward_layers(cov_model& model, const int32_t* tokens, const Segment* segments,
                     int64_t segment_count, Activations& activations,
                     float* dx, float* work);
int64_t backward_work_size(const cov_model& model, int64_t rows);

// Checks lengths, tokens in [0, vocab) and targets in [-1, vocab). Throws Failure.
void check_tokens(const cov_model_shape& shape, const int32_t* tokens, int64_t count,
                  const char* what);

// Runs `body` and turns every exception into a status.
template <typename Body>
cov_status guarded(const Body& body) {
  try {
    return body();
  } catch (const Failure& failure) { return failure.status; } catch (const std::bad_alloc&) {
    return cov_error(COV_OUT_OF_MEMORY, "the system refused memory for bookkeeping");
  } catch (const std::exception& error) {
    return cov_error(COV_INTERNAL, "unexpected: %s", error.what());
  }
}

}  // namespace covenant
