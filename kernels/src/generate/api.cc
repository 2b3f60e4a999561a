// The C API of the long-lived generator.
#include <memory>

#include "generate/call.h"
#include "generate/model_generator.h"

namespace {
constexpr int32_t kStepRows = 256;
}  // namespace

struct cov_generator {
  // Released last: the other members live in the model's memory.
  struct ModelHandle {
    cov_model* model;
    explicit ModelHandle(cov_model* m) : model(m) { cov_model_retain(m); }
    ModelHandle(const ModelHandle&) = delete;
    ModelHandle& operator=(const ModelHandle&) = delete;
    ~ModelHandle() { cov_model_release(model); }
  };

  ModelHandle handle;
  covenant::GenerationWeights weights;
  std::unique_ptr<covenant::ModelGenerator> made;
  covenant::Generator& generator() const { return made->generator; }
};

extern "C" cov_status cov_generator_create(cov_model* model, const cov_generator_options* options,
                                           cov_generator** generator) {
  if (generator != nullptr) *generator = nullptr;
  const cov_status status = covenant::check_generator_options(model != nullptr, options,
                                                              generator != nullptr);
  if (status.code != COV_OK) return status;
  return covenant::guarded([&] {
    std::unique_ptr<cov_generator> created(
        new cov_generator{cov_generator::ModelHandle(model), {}, nullptr});
    created->weights.pack(*model, options->weights);
    created->made = std::make_unique<covenant::ModelGenerator>(
        *model, created->weights, covenant::limits_of(*options, kStepRows));
    *generator = created.release();
    return cov_ok();
  });
}

extern "C" void cov_generator_release(cov_generator* generator) { delete generator; }

extern "C" cov_status cov_generator_refresh(cov_generator* generator) {
  if (generator == nullptr) return cov_error(COV_INVALID_ARGUMENT, "generator must be given");
  if (!generator->generator().idle())
    return cov_error(COV_FAILED_PRECONDITION, "requests are under way");
  return covenant::guarded([&] {
    generator->weights.pack(*generator->handle.model, generator->weights.type());
    return cov_ok();
  });
}

extern "C" cov_status cov_generator_submit(cov_generator* generator,
                                           const cov_generate_request* request,
                                           const cov_fingerprint_options* fingerprint,
                                           int32_t top_count, uint64_t* id) {
  if (generator == nullptr || request == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "generator and request must be given");
  return covenant::guarded([&] {
    const uint64_t given = generator->generator().submit(*request, fingerprint, top_count);
    if (id != nullptr) *id = given;
    return cov_ok();
  });
}

extern "C" cov_status cov_generator_cancel(cov_generator* generator, uint64_t id) {
  if (generator == nullptr) return cov_error(COV_INVALID_ARGUMENT, "generator must be given");
  if (!generator->generator().cancel(id))
    return cov_error(COV_OUT_OF_RANGE, "request %llu has ended",
                     static_cast<unsigned long long>(id));
  return cov_ok();
}

extern "C" cov_status cov_generator_step(cov_generator* generator, cov_generator_callback callback,
                                         void* context, int32_t* active) {
  if (generator == nullptr || callback == nullptr)
    return cov_error(COV_INVALID_ARGUMENT, "generator and callback must be given");
  const cov_status status = covenant::guarded([&] {
    generator->generator().step(
        [&](const cov_generator_event& event) { callback(context, &event); });
    return cov_ok();
  });
  if (active != nullptr) {
    const cov_generator_state state = generator->generator().state();
    *active = state.running + state.waiting;
  }
  return status;
}

extern "C" cov_generator_state cov_generator_get_state(const cov_generator* generator) {
  cov_generator_state state = generator->generator().state();
  state.weight_bytes = generator->weights.bytes();
  return state;
}
