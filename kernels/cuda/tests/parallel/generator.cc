// The long-lived generator on several devices: whatever the number of replicas and stages, each request yields in
// fp32 what it yields on the CPU; limits, ids and events of all replicas together; faults of one device.
#include <cstdlib>
#include <set>

#include "../engine/adapters.h"
#include "generators.h"
#include "support.h"

namespace {

using namespace covenant_test;

struct OnDevices : DeviceGenerator {
  using Model = cov_parallel_model;
  static constexpr auto generate = cov_parallel_model_generate;
  static constexpr auto create = cov_parallel_generator_create;
};

struct Layout {
  int32_t devices, stages;
  int32_t replicas() const { return devices / stages; }
};

constexpr cov_model_shape kLong = {37, 16, 20, 2, 4, 2, 192, 1, 10000.0, 1e-5};

bool same(const Completion& a, const Completion& b) {
  return a.tokens.size() == b.tokens.size() && begins_like(a, b) && a.reason == b.reason;
}

// Random schedules, with int8 weights as well; what one replica must do besides.
void schedules(const Layout& layout, const cov_model_shape& shape, int32_t compute) {
  const std::vector<float> parameters = lively_parameters(shape, 21);
  const std::vector<Job> jobs = make_jobs(shape, 12, 22);
  const ParallelModel model(layout.devices, shape, parameters, {layout.stages, compute, 0, 0});
  std::vector<Completion> expected;
  if (compute == COV_COMPUTE_F32) {
    expected = on_cpu(shape, parameters, jobs);
  } else {
    const DevicePointer device = open_device();
    const DeviceModel one(device.get(), shape, parameters, compute);
    for (const Job& job : jobs) expected.push_back(alone<OnDevice>(one, job, COV_WEIGHTS_F32));
  }
  for (uint32_t seed = 1; seed <= (kSanitized ? 2 : 4); ++seed)
    check_schedule<OnDevices>(model, shape, seed, COV_WEIGHTS_F32, expected, jobs, layout.devices);
  check_schedule<OnDevices>(model, shape, 5, COV_WEIGHTS_INT8, on_cpu(shape, parameters, jobs, COV_WEIGHTS_INT8),
                            jobs, layout.devices);
  if (layout.replicas() > 1 || shape.max_positions < 100) return;
  const TestModel cpu(shape, parameters);
  const Alone alone_there = [&](const Job& job) { return alone<CpuGenerator>(cpu, job, COV_WEIGHTS_F32); };
  check_pages_run_out<OnDevices>(model, shape, alone_there);
  check_prefix_sharing<OnDevices>(model, shape, alone_there);
}

void requests(const Layout& layout) {
  const cov_model_shape shape = tiny_shape();
  const cov_parallel_options options = {layout.stages, COV_COMPUTE_F32, 0, 0};
  const ParallelModel model(layout.devices, shape, lively_parameters(shape, 35), options);
  check_request_limit<OnDevices>(model);
  check_bad_input<OnDevices>(model);
  const ParallelModel broken(layout.devices, shape, broken_parameters(), options);
  check_non_finite<OnDevices>(broken, 1);
}

// Events of one step come in the order of the ids; requests go to all replicas, and what they hold is added up.
void order(const Layout& layout) {
  const cov_model_shape shape = tiny_shape();
  const ParallelModel model(layout.devices, shape, lively_parameters(shape, 35),
                            {layout.stages, COV_COMPUTE_F32, 0, 0});
  cov_device_generator* generator = nullptr;
  const cov_generator_options options = {COV_WEIGHTS_F32, 2, 0, 40, 0};
  CHECK_OK(cov_parallel_generator_create(model, &options, &generator));
  const std::vector<Job> jobs = make_jobs(shape, 6, 22);
  std::set<uint64_t> ids;
  for (const Job& job : jobs) {
    cov_generate_request request = job.request;
    request.max_new_tokens = 4;
    request.prompt_length = std::min(request.prompt_length, 10);  // nobody waits for pages to share
    request.stop_token_count = 0;
    uint64_t id = 0;
    CHECK_OK(cov_device_generator_submit(generator, &request, nullptr, 3, &id));
    ids.insert(id);
  }
  CHECK(ids.size() == jobs.size());
  struct Seen {
    uint64_t last = 0;
    int32_t count = 0;
  };
  const auto see = [](void* context, const cov_generator_event* event) {
    Seen& seen = *static_cast<Seen*>(context);
    CHECK(event->request > seen.last && event->top_tokens != nullptr && event->fingerprint == nullptr);
    CHECK(event->top_log_probs[0] >= event->top_log_probs[2]);
    seen.last = event->request;
    ++seen.count;
  };
  Seen first;
  int32_t active = 0;
  CHECK_OK(cov_device_generator_step(generator, see, &first, &active));
  // A stage more is a schedule more.
  CHECK(active == 6 && first.count == std::min(2 * layout.devices, 6));
  const cov_generator_state state = cov_device_generator_get_state(generator);
  CHECK(state.running == first.count && state.running + state.waiting == 6);
  CHECK(state.page_limit == 40 * layout.devices && state.pages >= first.count);
  const std::vector<float> values(cov_parameter_count(&shape));
  CHECK(state.weight_bytes >= values.size() * sizeof(float) * static_cast<size_t>(layout.replicas()));
  for (int steps = 0; active > 0 && steps < 100; ++steps) {
    Seen seen;
    CHECK_OK(cov_device_generator_step(generator, see, &seen, &active));
  }
  CHECK(active == 0 && cov_device_generator_get_state(generator).pages == 0);
  cov_device_generator_release(generator);
}

// A snapshot is of the adapters in use, and lasts while the model is trained; a new one is taken of all devices.
void snapshots(const Layout& layout) {
  const cov_model_shape shape = tiny_shape();
  const std::vector<Job> jobs = make_jobs(shape, 5, 30);
  const TestBatch batch(shape, 4, 5, 9);
  cov_parallel_model* model = nullptr;
  const int32_t devices[] = {3, 0, 2, 1};
  const cov_parallel_options parallel = {layout.stages, COV_COMPUTE_F32, 0, 0};
  CHECK_OK(cov_parallel_model_create(devices, layout.devices, &shape, &parallel, &model));
  const std::vector<float> parameters = lively_parameters(shape, 1);
  CHECK_OK(cov_parallel_model_write(model, COV_PARAMETERS, 0, parameters.size(), parameters.data()));
  const auto expected = [&] {
    std::vector<Completion> all;
    for (const Job& job : jobs) all.push_back(alone<OnDevices>(model, job, COV_WEIGHTS_F32));
    return all;
  };
  cov_device_generator* generator = nullptr;
  const cov_generator_options options = {COV_WEIGHTS_F32, 2, 20, 0, 0};
  const auto run = [&](const std::vector<Completion>& wanted, bool trains) {
    Completions completions;
    std::vector<uint64_t> ids(jobs.size());
    for (size_t i = 0; i < jobs.size(); ++i)
      CHECK_OK(cov_device_generator_submit(generator, &jobs[i].request, &kFingerprint, 0, &ids[i]));
    CHECK_OK(cov_device_generator_step(generator, take, &completions, nullptr));
    CHECK_CODE(cov_device_generator_refresh(generator), COV_FAILED_PRECONDITION);
    if (trains) CHECK_OK(cov_parallel_model_train_step(model, &batch.batch, &kAdamw, nullptr, nullptr));
    run_to_end<OnDevices>(generator, completions);
    for (size_t i = 0; i < jobs.size(); ++i) CHECK(same(completions[ids[i]], wanted[i]));
  };
  std::vector<Completion> adapted;
  {
    const cov_lora_options lora = {3, 6.0f, 127, 17};
    const DeviceAdapters<cov_parallel_model> adapters(model, lora, Numbers(41).floats(1800, 0.2f));
    adapted = expected();
    CHECK_OK(cov_parallel_generator_create(model, &options, &generator));
  }
  const std::vector<Completion> base = expected();
  CHECK(base[0].log_probs != adapted[0].log_probs);
  run(adapted, true);
  const std::vector<Completion> trained = expected();
  CHECK(trained[0].log_probs != base[0].log_probs);
  run(adapted, false);
  CHECK_OK(cov_device_generator_refresh(generator));
  cov_parallel_model_release(model);  // which lives as long as its generator
  run(trained, false);
  cov_device_generator_release(generator);
}

// Device 1 refuses launches during one step: the error is told, whatever the others drew is not lost, and all
// requests come to their end.
void faults(const Layout& layout) {
  const cov_model_shape shape = tiny_shape();
  const std::vector<float> parameters = lively_parameters(shape, 21);
  const std::vector<Job> jobs = make_jobs(shape, 6, 22);
  const std::vector<Completion> expected = on_cpu(shape, parameters, jobs);
  const ParallelModel model(layout.devices, shape, parameters, {layout.stages, COV_COMPUTE_F32, 0, 0});
  const struct {
    int step, launches;  // those that work
  } cases[] = {{0, 0}, {0, 7}, {1, 4}, {3, 0}};
  for (const auto& fault : cases) {
    cov_device_generator* generator = nullptr;
    const cov_generator_options options = {COV_WEIGHTS_F32, 4, 0, 0, 0};
    CHECK_OK(cov_parallel_generator_create(model, &options, &generator));
    Completions completions;
    for (const Job& job : jobs)
      CHECK_OK(cov_device_generator_submit(generator, &job.request, &kFingerprint, 0, nullptr));
    for (int step = 0; step < fault.step; ++step)
      CHECK_OK(cov_device_generator_step(generator, take, &completions, nullptr));
    const auto drawn = [&] {
      size_t tokens = 0;
      for (const auto& [id, completion] : completions) tokens += completion.tokens.size();
      return tokens;
    };
    const size_t before = drawn();
    setenv("COVENANT_EMULATION_FAULT", ("1:" + std::to_string(fault.launches)).c_str(), 1);
    int32_t active = 0;
    CHECK_CODE(cov_device_generator_step(generator, take, &completions, &active), COV_INTERNAL);
    unsetenv("COVENANT_EMULATION_FAULT");
    CHECK(layout.replicas() == 1 ? drawn() == before : drawn() > before);
    CHECK(active > 0);
    run_to_end<OnDevices>(generator, completions);
    for (size_t i = 0; i < jobs.size(); ++i) CHECK(same(completions[i + 1], expected[i]));
    cov_device_generator_release(generator);
  }
}

// Where one device has no room for a generator, there is none, and the others have all of theirs back.
void memory(int32_t stages) {
  const cov_model_shape shape = small_shape();
  const std::vector<float> parameters = lively_parameters(shape, 25);
  const cov_generator_options options = {COV_WEIGHTS_F32, 1, 16, 0, 0};
  cov_parallel_options parallel = {stages, COV_COMPUTE_F32, 0, 0};
  const auto bytes = [](cov_parallel_model* model, int32_t place) {
    uint64_t found = 0;
    CHECK_OK(cov_parallel_model_device(model, place, nullptr, nullptr, &found, nullptr));
    return found;
  };
  {
    const ParallelModel model(2, shape, parameters, parallel);
    parallel.memory_limit_bytes = std::max(bytes(model, 0), bytes(model, 1)) + 1000;
  }
  const ParallelModel model(2, shape, parameters, parallel);
  const uint64_t before[] = {bytes(model, 0), bytes(model, 1)};
  cov_device_generator* generator = nullptr;
  CHECK_CODE(cov_parallel_generator_create(model, &options, &generator), COV_MEMORY_LIMIT);
  CHECK(generator == nullptr && bytes(model, 0) == before[0] && bytes(model, 1) == before[1]);
}

}  // namespace

int main() {
  if (!have_devices(2)) return kSkipped;
  const bool emulated = std::getenv("COVENANT_EMULATED_DEVICES") != nullptr;
  for (const Layout& layout : {Layout{2, 1}, Layout{2, 2}, Layout{3, 1}, Layout{4, 2}}) {
    if (layout.devices > cov_device_count()) continue;
    schedules(layout, tiny_shape(), COV_COMPUTE_F32);
    if (layout.devices == 2) schedules(layout, kLong, COV_COMPUTE_F32);
    if (layout.devices == 4) schedules(layout, tiny_shape(), COV_COMPUTE_BF16);
    requests(layout);
    order(layout);
    if (cov_device_count() > 3) snapshots(layout);
    if (emulated) faults(layout);
  }
  for (const int32_t stages : {1, 2}) memory(stages);
  cov_device_generator* none = nullptr;
  const cov_generator_options options = {};
  CHECK_CODE(cov_parallel_generator_create(nullptr, &options, &none), COV_INVALID_ARGUMENT);
  TEST_MAIN_END("cuda parallel generator");
}
