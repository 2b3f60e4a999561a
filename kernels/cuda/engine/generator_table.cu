#include "engine/generator_table.cuh"

#include "engine/generator.cuh"

namespace covenant::cuda {
namespace {

AnyGenerator& generator_of(void* handle) { return *static_cast<AnyGenerator*>(handle); }

void release(void* handle) { delete static_cast<AnyGenerator*>(handle); }

cov_status refresh(void* handle) {
  return guard([&] { generator_of(handle).refresh(); });
}

cov_status submit(void* handle, const cov_generate_request* request,
                  const cov_fingerprint_options* fingerprint, int32_t top_count, uint64_t* id) {
  return guard([&] {
    *id = generator_of(handle).submit(*request, fingerprint, top_count);
  });
}

cov_status cancel(void* handle, uint64_t id) {
  return guard([&] {
    if (!generator_of(handle).cancel(id))
      raise(COV_OUT_OF_RANGE, "request %llu has ended", static_cast<unsigned long long>(id));
  });
}

cov_status step(void* handle, cov_generator_callback callback, void* context) {
  return guard([&] {
    generator_of(handle).step(
        [&](const cov_generator_event& event) { callback(context, &event); });
  });
}

void state(const void* handle, cov_generator_state* state) {
  *state = static_cast<const AnyGenerator*>(handle)->state();
}

}  // namespace

const device::GeneratorTable& generator_table() {
  static const device::GeneratorTable table = {
      .release = release,
      .refresh = refresh,
      .submit = submit,
      .cancel = cancel,
      .step = step,
      .state = state,
  };
  return table;
}

}  // namespace covenant::cuda
