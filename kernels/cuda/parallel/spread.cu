#include "parallel/spread.h"

#include <cmath>

#include "parallel/peer.h"
#include "parallel/split.h"

namespace covenant::cuda {

// Calls body(piece) for every device, which is active.
template <typename Body>
void Spread::each(const Body& body) {
  for (Replica& replica : replicas_)
    for (Piece& piece : replica) {
      piece.device.activate();
      body(piece);
    }
}

void Spread::add(Replica replica) {
  if (replicas_.empty())
    for (const Piece& piece : replica)
      for (const Slice::Part& part : piece.parts) count_ += part.count;
  replicas_.push_back(std::move(replica));
}

void Spread::set_step_count(int64_t count) {
  each([&](Piece& piece) { piece.parameters.step_count = count; });
}

void Spread::read(size_t replica, cov_buffer which, uint64_t offset, uint64_t count, float* values) {
  for (const Piece& piece : replicas_[replica]) {
    piece.device.activate();
    const float* const from = piece.parameters.state(which);
    for (const Slice::Part& part : overlap(piece.parts, offset, count))
      piece.device.download(values + (part.global - offset), from + part.local,
                            part.count * sizeof(float));
    piece.device.finish();
  }
}

void Spread::write(cov_buffer which, uint64_t offset, uint64_t count, const float* values) {
  for (size_t r = 0; r < replicas_.size(); ++r)
    for (const Piece& piece : replicas_[r]) {
      piece.device.activate();
      float* const to = piece.parameters.state(which);
      for (const Slice::Part& part : overlap(piece.parts, offset, count)) {
        if (which == COV_GRADIENTS && r > 0)
          piece.device.fill_zero(to + part.local, part.count * sizeof(float));
        else
          piece.device.upload(to + part.local, values + (part.global - offset),
                              part.count * sizeof(float));
      }
      piece.device.finish();
    }
}

void Spread::sum_gradients() {
  for (size_t s = 0; s < rings_.size(); ++s) {
    for (const Slice::Part& part : replicas_[0][s].parts) {
      std::vector<float*> buffers;
      for (const Replica& replica : replicas_) {
        replica[s].device.activate();
        buffers.push_back(replica[s].parameters.state(COV_GRADIENTS) + part.local);
      }
      rings_[s]->all_reduce(buffers, part.count);
    }
  }
}

void Spread::collect_gradients() {
  if (replicas_.size() == 1) return;
  sum_gradients();
  for (size_t r = 1; r < replicas_.size(); ++r)
    for (Piece& piece : replicas_[r]) {
      piece.device.activate();
      piece.parameters.clear_gradients();
    }
}

void Spread::clear_gradients() {
  each([](Piece& piece) {
    piece.parameters.clear_gradients();
    piece.device.finish();
  });
}

void Spread::prepare_step() {
  each([](Piece& piece) { piece.parameters.prepare_step(); });
}

// A chunk whose gradients lie on several stages is put together on the last of them, before its own part,
// so that its sum is that of a single device.
void Spread::gather_chunks() {
  Replica& stages = replicas_[0];
  for (const Piece& piece : stages) {
    piece.device.activate();
    piece.device.finish();
  }
  for (const Piece& to : stages) {
    to.device.activate();
    for (const Slice::Part& part : to.parts) {
      const uint64_t before = part.global % kAdamwChunk;
      for (const Piece& from : stages)
        for (const Slice::Part& found : overlap(from.parts, part.global - before, before))
          copy_peer(to.device.stream(), to.device,
                    to.parameters.state(COV_GRADIENTS) + part.local - (part.global - found.global),
                    from.device, from.parameters.state(COV_GRADIENTS) + found.local,
                    found.count * sizeof(float));
    }
  }
}

double Spread::gradient_norm() {
  if (replicas_[0].size() > 1) gather_chunks();
  std::vector<double> sums((count_ + kAdamwChunk - 1) / kAdamwChunk);
  std::vector<uint64_t> ends(sums.size(), 0);
  for (const Piece& piece : replicas_[0]) {
    piece.device.activate();
    const std::vector<double> local = piece.parameters.gradient_sums();
    for (const Slice::Part& part : piece.parts) {
      const uint64_t first = part.global / kAdamwChunk, shift = part.local / kAdamwChunk - first;
      const uint64_t last = (part.global + part.count - 1) / kAdamwChunk;
      for (uint64_t chunk = first; chunk <= last; ++chunk) {
        // The part that reaches furthest has the whole chunk.
        const uint64_t end = part.global + part.count;
        if (end < ends[chunk]) continue;
        ends[chunk] = end;
        sums[chunk] = local[chunk + shift];
      }
    }
  }
  double total = 0.0;
  for (const double sum : sums) total += sum;
  const double norm = std::sqrt(total);
  if (!std::isfinite(norm))
    raise(COV_NON_FINITE, "the gradient norm is not finite; no step was made");
  return norm;
}

}  // namespace covenant::cuda
