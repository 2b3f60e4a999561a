// cov_model_generate: all requests of a call through a generator that lives for the call.
#include "generate/call.h"
#include "generate/model_generator.h"

namespace covenant {
namespace {

constexpr int32_t kStepRows = 512;

}  // namespace

GenerationWeights& packed_generation_weights(cov_model& model, int32_t type) {
  if (model.generation_weights == nullptr)
    model.generation_weights = std::make_shared<GenerationWeights>();
  model.generation_weights->pack(model, type);
  return *model.generation_weights;
}

}  // namespace covenant

extern "C" cov_status cov_model_generate(cov_model* model, const cov_generate_request* requests,
                                         int32_t request_count, const cov_generate_options* options,
                                         cov_generate_output* outputs) {
  using namespace covenant;
  const cov_status status =
      check_generate_options(model != nullptr, requests, request_count, options, outputs);
  if (status.code != COV_OK) return status;
  return guarded([&] {
    check_generate_requests(model->shape, requests, request_count, *options, outputs);
    const GenerationWeights& weights = packed_generation_weights(*model, options->weights);
    ModelGenerator made(*model, weights, {batch_of(*options), kStepRows, 0});
    generate_all({&made.generator}, requests, request_count, *options, outputs, {});
    return cov_ok();
  });
}
