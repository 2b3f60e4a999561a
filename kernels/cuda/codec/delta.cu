// Policy deltas: the host side of finding, coding and applying changes.
#include "codec/delta.cuh"

#include <cstring>

#include "hash/pieces.h"
#include "runtime/platform.h"

namespace covenant::cuda {
namespace {

// Chunks coded at once have this much room each at first; a longer code is made again.
constexpr uint32_t kRoomBytes = COV_DELTA_CHUNK / 4;
constexpr uint32_t kWarpsOnMultiprocessor = 8;

// Codes chunks with the rooms given in jobs; rooms lie behind each other in scratch memory. Writes
// sizes, and the codes that fit.
void encode_jobs(Device& device, const uint16_t* base, const uint16_t* next, uint64_t count,
                 std::vector<DeltaJob> jobs, std::vector<uint32_t>& sizes,
                 std::vector<std::vector<uint8_t>>& codes) {
  if (jobs.empty()) return;
  const Arena::Scope scope(device.scratch());
  uint64_t room = 0;
  for (const DeltaJob& job : jobs) room += job.bytes;
  auto* at = device.scratch().take<uint8_t>(room);
  for (DeltaJob& job : jobs) {
    job.at = at;
    at += job.bytes;
  }
  auto* const list = device.scratch().take<DeltaJob>(jobs.size());
  auto* const found = device.scratch().take<uint32_t>(jobs.size());
  device.upload(list, jobs.data(), jobs.size() * sizeof(DeltaJob));
  launch_delta_encode(device.stream(), base, next, count, list, static_cast<uint32_t>(jobs.size()),
                      found);
  std::vector<uint32_t> own(jobs.size());
  device.download(own.data(), found, own.size() * sizeof(uint32_t));
  device.finish();
  for (size_t i = 0; i < jobs.size(); ++i) {
    const uint64_t chunk = jobs[i].chunk;
    sizes[chunk] = own[i];
    if (own[i] > jobs[i].bytes || own[i] >= 2 * codec::delta_chunk_weights(count, chunk)) continue;
    codes[chunk].resize(own[i]);
    device.download(codes[chunk].data(), jobs[i].at, own[i]);
  }
  device.finish();
}

std::vector<uint32_t> count_changes(Device& device, const uint16_t* base, const uint16_t* next,
                                    uint64_t count) {
  std::vector<uint32_t> changed(codec::delta_chunks(count));
  if (changed.empty()) return changed;
  const Arena::Scope scope(device.scratch());
  auto* const found = device.scratch().take<uint32_t>(changed.size());
  device.fill_zero(found, changed.size() * sizeof(uint32_t));
  launch_delta_count(device.stream(), base, next, count, found);
  device.download(changed.data(), found, changed.size() * sizeof(uint32_t));
  device.finish();
  return changed;
}

}  // namespace

void delta_root(Device& device, const uint16_t* weights, uint64_t count,
                uint8_t root[COV_HASH_BYTES]) {
  require(codec::check_delta_weights(weights, count));
  const uint64_t chunks = codec::delta_chunks(count);
  std::vector<uint8_t> items(chunks * COV_HASH_BYTES);
  std::vector<Piece> pieces;
  for (uint64_t c = 0; c < chunks; ++c)
    pieces.push_back({weights + c * COV_DELTA_CHUNK,
                      codec::delta_chunk_weights(count, c) * sizeof *weights});
  hash_pieces(device, pieces, items.data());
  require(cov_merkle_root(items.data(), chunks, root));
}

void delta_encode(Device& device, const uint16_t* base, const uint16_t* next, uint64_t count,
                  cov_bytes* delta) {
  require(codec::check_delta_weights(base, count));
  require(codec::check_delta_weights(next, count));
  const std::vector<uint32_t> changed = count_changes(device, base, next, count);
  const uint64_t chunks = changed.size();
  codec::DeltaParts parts;
  parts.codes.resize(chunks);
  parts.entries.resize(chunks);
  std::vector<DeltaJob> jobs;
  const size_t most = static_cast<size_t>(device.multiprocessors()) * kWarpsOnMultiprocessor;
  for (uint64_t c = 0; c < chunks; ++c) {
    parts.changed += changed[c];
    if (changed[c] > 0) jobs.push_back({c, nullptr, kRoomBytes, 0});
    if (jobs.size() < most && c + 1 < chunks) continue;
    encode_jobs(device, base, next, count, jobs, parts.entries, parts.codes);
    jobs.clear();
  }
  for (uint64_t c = 0; c < chunks; ++c) {
    const uint64_t bytes = 2 * codec::delta_chunk_weights(count, c);
    if (parts.entries[c] >= bytes) {
      parts.codes[c].resize(bytes);
      device.download(parts.codes[c].data(), next + c * COV_DELTA_CHUNK, bytes);
      parts.entries[c] = static_cast<uint32_t>(bytes) | codec::kDeltaRaw;
    } else if (parts.entries[c] > kRoomBytes) {
      jobs.push_back({c, nullptr, parts.entries[c], 0});
    }
    if (jobs.size() < most / 8 + 1 && c + 1 < chunks) continue;
    encode_jobs(device, base, next, count, jobs, parts.entries, parts.codes);
    jobs.clear();
  }
  device.finish();
  delta_root(device, base, count, parts.base_root);
  delta_root(device, next, count, parts.result_root);
  codec::join_delta(count, parts, delta);
}

void delta_apply(Device& device, const uint16_t* base, uint64_t count, const uint8_t* delta,
                 uint64_t delta_bytes, uint16_t* next) {
  require(codec::check_delta_weights(base, count));
  cov_delta_info info;
  std::vector<uint64_t> starts;
  require(codec::check_delta(count, delta, delta_bytes, &info, &starts));
  uint8_t root[COV_HASH_BYTES];
  delta_root(device, base, count, root);
  if (std::memcmp(root, info.base_root, sizeof root) != 0) require(codec::refuse_delta_base());
  const Arena::Scope scope(device.scratch());
  auto* const bytes = device.scratch().take<uint8_t>(delta_bytes);
  device.upload(bytes, delta, delta_bytes);
  std::vector<DeltaJob> jobs;
  for (uint64_t c = 0; c < info.chunk_count; ++c) {
    const uint32_t entry = codec::delta_entry(delta, c);
    if (entry != 0)
      jobs.push_back({c, bytes + starts[c], entry & ~codec::kDeltaRaw,
                      (entry & codec::kDeltaRaw) != 0 ? 1u : 0u});
  }
  auto* const list = device.scratch().take<DeltaJob>(jobs.size());
  auto* const first_bad = device.scratch().take<unsigned long long>(1);
  auto* const changed = device.scratch().take<unsigned long long>(1);
  device.upload(list, jobs.data(), jobs.size() * sizeof(DeltaJob));
  device.fill_ones(first_bad, sizeof *first_bad);
  device.fill_zero(changed, sizeof *changed);
  if (next != base) device.copy(next, base, count * sizeof *next);
  launch_delta_decode(device.stream(), next, count, list, static_cast<uint32_t>(jobs.size()),
                      first_bad, changed);
  unsigned long long bad = 0;
  unsigned long long found = 0;
  device.download(&bad, first_bad, sizeof bad);
  device.download(&found, changed, sizeof found);
  device.finish();
  if (bad != ~0ull) require(codec::refuse_delta_chunk(bad));
  delta_root(device, next, count, root);
  if (std::memcmp(root, info.result_root, sizeof root) != 0 || found != info.changed_count)
    require(codec::refuse_delta_result());
}

}  // namespace covenant::cuda
