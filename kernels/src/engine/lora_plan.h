// Where the adapters of a model lie and what they begin with (covenant/lora.h): what the CPU's and a
// device's have in common. Tier A.
//
// Matrices that the layers multiply as one (q, k, v; gate and up) form a group, whose adapters are
// one adapter of rank R = rank * members: A stacked (R, k), B block diagonal (n, R).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "covenant/lora.h"

namespace covenant {

struct Layout;

struct LoraPlan {
  // One adapted matrix: its place in the model's parameters, A and B in the adapters' own.
  struct Adapter {
    int64_t offset, n, k;
    int64_t a, b;
  };
  struct Group {
    int64_t offset, n, k;  // of the whole matrix
    size_t first, count;   // its adapters
  };
  int32_t rank = 0;
  float scale = 0;  // alpha / rank
  int64_t size = 0;
  // What layers before those of the layout have of it.
  int64_t floats_before = 0, adapters_before = 0;
  std::vector<Adapter> adapters;  // by offset
  std::vector<Group> groups;      // by offset

  // The layout may be of a slice of a model, which `layers_before` layers precede.
  LoraPlan(const Layout& layout, const cov_lora_options& options, int64_t layers_before = 0);
  int64_t group_rank(const Group& group) const { return rank * static_cast<int64_t>(group.count); }
  // Index of the group whose matrix is at `offset` of the parameters, or -1.
  int64_t group_at(int64_t offset) const;
  // Writes the initial A; B (zeros) is left alone.
  void initialise(uint64_t seed, float* parameters) const;
};

// Throws Failure.
void check_lora_options(const cov_lora_options& options);

// Of a call that trains, with COV_FAILED_PRECONDITION.
inline constexpr const char* kMergedSentence =
    "the adapters are merged into the base; unmerge them to train them";

}  // namespace covenant
