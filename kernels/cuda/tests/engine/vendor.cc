// Products by cuBLASLt. Under emulation a stand-in checks every argument and makes the products, so that
// layouts, transposes and leading dimensions count; on a device the real one is used where it is found.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

#include "support.h"

namespace {

using namespace covenant_test;

constexpr int32_t kVendor = COV_COMPUTE_BF16 | COV_PRODUCTS_VENDOR;
constexpr cov_model_shape kShape = {24, 64, 40, 2, 4, 2, 64, 0, 10000.0, 1e-5};

cov_status create(cov_device* device, int32_t compute = kVendor) {
  cov_device_model* model = nullptr;
  const cov_status status = cov_device_model_create(device, &kShape, compute, &model);
  CHECK((model == nullptr) == (status.code != COV_OK));
  cov_device_model_release(model);
  return status;
}

// Gradients, log-probs and three steps of both kinds of products.
void compare(cov_device* device) {
  const std::vector<float> parameters = lively_parameters(kShape, 8);
  const TestBatch batch(kShape, 2, 12, 6, 100);
  std::vector<float> log_probs[2], gradients[2];
  double losses[2] = {};
  for (int i = 0; i < 2; ++i) {
    const DeviceModel model(device, kShape, parameters, i == 0 ? COV_COMPUTE_BF16 : kVendor);
    const cov_forward_options options = {1, 0, 1.0f};
    log_probs[i].resize(batch.tokens.size());
    const cov_forward_output output = {log_probs[i].data(), nullptr, nullptr, nullptr};
    CHECK_OK(cov_device_model_forward(model, &batch.batch, &options, &output));
    const std::vector<float> coefficients(batch.tokens.size(), -0.04f);
    CHECK_OK(cov_device_model_backward(model, coefficients.data(), coefficients.size()));
    gradients[i] = model.read(COV_GRADIENTS);
    const cov_adamw_options adamw = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
    for (int step = 0; step < 3; ++step)
      CHECK_OK(cov_device_model_train_step(model, &batch.batch, &adamw, &losses[i], nullptr));
  }
  CHECK_NEAR(difference(log_probs[1], log_probs[0].data()), 0, 1e-2);
  CHECK_NEAR(difference(gradients[1], gradients[0].data()), 0, 2e-2);
  CHECK_NEAR(losses[1], losses[0], 1e-2 * losses[0]);
}

}  // namespace

int main() {
  if (!have_device()) return kSkipped;
  const DevicePointer device = open_device();
  CHECK_CODE(create(device.get(), COV_COMPUTE_F32 | COV_PRODUCTS_VENDOR), COV_INVALID_ARGUMENT);
  setenv("COVENANT_CUBLASLT_LIBRARY", "/nowhere/libcublasLt.so", 1);
  CHECK_CODE(create(device.get()), COV_UNSUPPORTED);
  const char* const stand_in = std::getenv("COVENANT_FAKE_CUBLASLT");
  if (stand_in == nullptr) {
    unsetenv("COVENANT_CUBLASLT_LIBRARY");
    const cov_status status = create(device.get());
    if (status.code == COV_OK)
      compare(device.get());
    else
      std::printf("not compared: %s\n", status.message);
    TEST_MAIN_END("cuda vendor");
  }
  setenv("COVENANT_CUBLASLT_LIBRARY", stand_in, 1);
  setenv("COVENANT_FAKE_CUBLASLT_VERSION", "110400", 1);
  CHECK_CODE(create(device.get()), COV_UNSUPPORTED);
  unsetenv("COVENANT_FAKE_CUBLASLT_VERSION");
  void* const file = dlopen(stand_in, RTLD_NOW | RTLD_LOCAL);
  const auto products = reinterpret_cast<int (*)()>(dlsym(file, "covenant_fake_products"));
  CHECK(products != nullptr && products() == 0);
  compare(device.get());
  // Of each layer and the head one product forward and two backward: one pass and three steps; the
  // pass's head is computed again in backward.
  if (products != nullptr) CHECK(products() == 4 * (2 * 4 + 1) * 3 + 1);
  dlclose(file);
  TEST_MAIN_END("cuda vendor");
}
