// The calls of the class Generator by what computes them, as in model_calls.h.
#pragma once

#include <utility>

#include "model_calls.h"

namespace covenant_node {

// Over the functions that `Api` names; `owner` is what must live as long as the generator does.
template <typename Api, typename Owner>
class GeneratorOf final : public GeneratorCalls {
 public:
  explicit GeneratorOf(Owner owner) : owner_(std::move(owner)) {}
  ~GeneratorOf() override { Api::release(generator_); }

  cov_status create(typename Api::Model* model, const cov_generator_options& options) {
    return Api::create(model, &options, &generator_);
  }

  cov_status refresh() override { return Api::refresh(generator_); }
  cov_status submit(const cov_generate_request& request, const cov_fingerprint_options* fingerprint,
                    int32_t top_count, uint64_t* id) override {
    return Api::submit(generator_, &request, fingerprint, top_count, id);
  }
  cov_status cancel(uint64_t id) override { return Api::cancel(generator_, id); }
  cov_status step(cov_generator_callback callback, void* context, int32_t* active) override {
    return Api::step(generator_, callback, context, active);
  }
  cov_generator_state state() const override { return Api::get_state(generator_); }

 private:
  Owner owner_;
  typename Api::Generator* generator_ = nullptr;
};

// A generator by `Api` over the model, or an error and none.
template <typename Api, typename Owner>
cov_status make_generator(typename Api::Model* model, const cov_generator_options& options,
                          Owner owner, std::unique_ptr<GeneratorCalls>& generator) {
  auto made = std::make_unique<GeneratorOf<Api, Owner>>(std::move(owner));
  const cov_status status = made->create(model, options);
  if (status.code == COV_OK) generator = std::move(made);
  return status;
}

}  // namespace covenant_node
