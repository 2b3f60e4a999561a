// Entry of the addon. Context-aware: all state hangs on the environment, so it works in worker
// threads.
#include "bindings.h"
#include "jobs.h"

static Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new covenant_node::AddonData(env));
  covenant_node::export_tables(env, exports);
  covenant_node::export_sparse(env, exports);
  covenant_node::export_packed(env, exports);
  covenant_node::export_codec(env, exports);
  covenant_node::export_projection(env, exports);
  covenant_node::export_devices(env, exports);
  covenant_node::export_model(env, exports);
  covenant_node::export_create_model(env, exports);
  covenant_node::export_generator(env, exports);
  return exports;
}

NODE_API_MODULE(covenant_kernels, initialise)
