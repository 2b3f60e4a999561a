#include "emulation/capture.h"

#include <algorithm>
#include <utility>

namespace covenant::emulation {
namespace {

std::vector<Capture*>& captures() {
  static auto* const all = new std::vector<Capture*>;
  return *all;
}

}  // namespace

std::unique_ptr<Capture> begin_capture(Withheld withheld) {
  auto capture = std::make_unique<Capture>();
  capture->thread = std::this_thread::get_id();
  capture->withheld = withheld;
  captures().push_back(capture.get());
  return capture;
}

bool record(Capture& capture, std::function<bool()> work) {
  if (capture.valid) capture.nodes.push_back(std::move(work));
  return capture.valid;
}

void forget(std::unique_ptr<Capture>& capture) {
  std::vector<Capture*>& all = captures();
  all.erase(std::remove(all.begin(), all.end(), capture.get()), all.end());
  capture.reset();
}

bool may_act_outside() {
  bool may = true;
  for (Capture* const capture : captures()) {
    const bool own = capture->thread == std::this_thread::get_id();
    if (capture->withheld == Withheld::kNobody || (!own && capture->withheld == Withheld::kOwnThread)) continue;
    capture->valid = false;
    may = false;
  }
  return may;
}

}  // namespace covenant::emulation
