// The weights of generation on a device, of a model or of a slice of one. Tier A: bytes, scales and rounded
// parameters are the CPU's (src/generate/weights.h).
//
// What a cov_weight_type means depends on the model's compute only for COV_WEIGHTS_F32, the type of the model: in
// bf16 models that is bf16 on the tensor cores. COV_WEIGHTS_BF16 and COV_WEIGHTS_INT8 are those of the CPU, made from
// the fp32 parameters, adapters in use added first.
#pragma once

#include <vector>

#include "engine/cutter.cuh"
#include "engine/model.cuh"

namespace covenant::cuda {

// An (n, k) matrix, one line for each output. One pointer is set.
struct GenerationMatrix {
  int64_t n = 0, k = 0;
  const float* f32 = nullptr;
  const uint16_t* bf16 = nullptr;
  const int8_t* int8 = nullptr;    // lines int8_stride(k) apart
  const float* scales = nullptr;  // of int8
};

class GenerationWeights {
 public:
  enum class Form {
    kF32,
    kTensor,  // bf16, products on the tensor cores
    kBf16,    // bf16, arithmetic in fp32
    kInt8,
  };
  // A view holds nothing where the model itself has the weights, and is good until the model changes; a copy is a
  // snapshot of any type.
  enum class Keep { kView, kCopy };

  struct Layer {
    GenerationMatrix qkv, o, gate_up, down;
    const float *norm1, *norm2;
  };

  // Allocates, and takes the weights as they are now, the adapters in use added. COV_MEMORY_LIMIT or
  // COV_OUT_OF_MEMORY.
  GenerationWeights(Model& model, int32_t type, Keep keep);
  // Waits for the device, which may still read them.
  ~GenerationWeights();
  GenerationWeights(const GenerationWeights&) = delete;
  GenerationWeights& operator=(const GenerationWeights&) = delete;

  // Takes the weights anew, queued behind what the device does; nothing moves. A failure leaves the old ones.
  void refresh();

  Model& model() const { return model_; }
  Form form() const { return form_; }
  // Whether keys and values are kept in bf16.
  bool bf16_pages() const { return type_ != COV_WEIGHTS_F32; }
  // Of the memory they hold by themselves.
  uint64_t bytes() const { return data_.bytes(); }

  const Layer& layer(int64_t i) const { return layers_[static_cast<size_t>(i)]; }
  // Of the slice that has it.
  bool has_embedding() const { return embedding_.n > 0; }
  void embed(const int32_t* tokens, int64_t rows, float* x) const;
  // Likewise.
  const GenerationMatrix& head() const { return head_; }
  const float* final_norm() const { return final_norm_; }

 private:
  bool packed() const { return keep_ == Keep::kCopy || type_ != COV_WEIGHTS_F32; }
  void lay_out(Cutter& cutter, bool fill);
  GenerationMatrix matrix(Cutter& cutter, bool fill, int64_t offset, int64_t n, int64_t k);
  GenerationMatrix embedding(Cutter& cutter, bool fill);
  const float* vector(Cutter& cutter, bool fill, int64_t offset);
  const float* effective(int64_t offset);

  Model& model_;
  int32_t type_;
  Keep keep_;
  Form form_;
  Buffer<char> data_;
  float* adapted_ = nullptr;  // room for one matrix with its adapters
  std::vector<Layer> layers_;
  GenerationMatrix head_, embedding_;
  const float* final_norm_ = nullptr;
};

}  // namespace covenant::cuda
