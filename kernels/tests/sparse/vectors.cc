// The golden vectors of test/vectors/sparse, made by an independent implementation (make.py beside
// them): same bytes.
#include <cstring>
#include <fstream>
#include <iterator>

#include "sparse/fixtures.h"

using namespace covenant_test;

namespace {

class Reader {
 public:
  explicit Reader(const std::string& name) {
    std::ifstream file(std::string(COVENANT_VECTORS) + "/sparse/" + name, std::ios::binary);
    data_.assign(std::istreambuf_iterator<char>(file), {});
    if (data_.empty()) std::fprintf(stderr, "cannot read %s\n", name.c_str());
  }
  template <typename T>
  T value() {
    T out{};
    take(&out, sizeof out);
    return out;
  }
  std::vector<float> floats(size_t count) {
    std::vector<float> out(count);
    take(out.data(), count * sizeof(float));
    return out;
  }
  std::vector<uint8_t> bytes(size_t count) {
    std::vector<uint8_t> out(count);
    take(out.data(), count);
    return out;
  }
  bool magic(const char* text) {
    const auto have = bytes(4);
    return std::memcmp(have.data(), text, 4) == 0;
  }
  bool at_end() const { return at_ == data_.size(); }

 private:
  void take(void* out, size_t count) {
    CHECK(at_ + count <= data_.size());
    if (at_ + count > data_.size()) return;
    std::memcpy(out, data_.data() + at_, count);
    at_ += count;
  }
  std::vector<char> data_;
  size_t at_ = 0;
};

std::vector<cov_tensor_info> read_table(Reader& reader) {
  const auto count = reader.value<uint32_t>();
  std::vector<cov_tensor_info> tensors;
  uint64_t offset = 0;
  for (uint32_t t = 0; t < count; ++t) {
    cov_tensor_info info = table({reader.value<uint64_t>()})[0];
    info.offset = offset;
    offset += info.length;
    tensors.push_back(info);
  }
  return tensors;
}

void compress_case(const std::string& name) {
  Reader reader(name);
  CHECK(reader.magic("CVT1"));
  cov_sparse_format format{};
  format.mode = static_cast<int32_t>(reader.value<uint32_t>());
  format.keep_per_chunk = static_cast<int32_t>(reader.value<uint32_t>());
  const auto beta = reader.value<float>();
  const auto tensors = read_table(reader);
  const size_t count = total(tensors);
  const auto base = reader.floats(count);
  const auto current = reader.floats(count);
  const auto before = reader.floats(count);
  const auto after = reader.floats(count);
  const auto body = reader.bytes(reader.value<uint64_t>());
  CHECK(reader.at_end());

  const auto packed = compress(tensors, format, base, current, before, beta);
  CHECK_OK(packed.status);
  CHECK(packed.body == body);
  CHECK_SAME(packed.error_feedback.data(), after.data(), count * sizeof(float));
  CHECK_OK(decode(body, tensors, format).status);
}

void merge_case(const std::string& name) {
  Reader reader(name);
  CHECK(reader.magic("CVT2"));
  cov_sparse_format format{};
  format.mode = static_cast<int32_t>(reader.value<uint32_t>());
  format.keep_per_chunk = static_cast<int32_t>(reader.value<uint32_t>());
  const auto tensors = read_table(reader);
  const auto peers = reader.value<uint32_t>();
  std::vector<std::vector<uint8_t>> bodies;
  std::vector<const uint8_t*> pointers;
  std::vector<uint64_t> sizes;
  for (uint32_t r = 0; r < peers; ++r) {
    bodies.push_back(reader.bytes(reader.value<uint64_t>()));
    pointers.push_back(bodies.back().data());
    sizes.push_back(bodies.back().size());
  }
  const auto weights = reader.floats(peers);
  const auto merges = reader.value<uint32_t>();
  CHECK(merges == 4);
  for (uint32_t i = 0; i < merges; ++i) {
    const auto rule = static_cast<int32_t>(reader.value<uint32_t>());
    const auto clip = static_cast<int32_t>(reader.value<uint32_t>());
    const auto expected = reader.bytes(reader.value<uint64_t>());
    const cov_merge_input input{
        pointers.data(), sizes.data(), weights.data(), static_cast<int32_t>(peers), rule, clip};
    cov_bytes merged{};
    CHECK_OK(cov_sparse_merge(&input, tensors.data(), static_cast<int32_t>(tensors.size()), format,
                              1, &merged));
    CHECK(merged.length == expected.size());
    if (merged.length == expected.size()) CHECK_SAME(merged.data, expected.data(), expected.size());
    cov_bytes_free(&merged);
  }
  CHECK(reader.at_end());
}

}  // namespace

int main() {
  for (const char* name :
       {"two-bit.bin", "one-bit.bin", "dense.bin", "edges-two-bit.bin", "edges-one-bit.bin"}) {
    compress_case(name);
  }
  merge_case("merge.bin");
  TEST_MAIN_END("sparse/vectors");
}
