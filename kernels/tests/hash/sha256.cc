// SHA-256 against the published answers, both block functions, and the Merkle root.
#include "hash/sha256.h"

#include <cstdio>
#include <string>
#include <vector>

#include "check.h"
#include "covenant/hash.h"
#include "hash/pieces.h"

using covenant::hash::BlockFunction;
using covenant::hash::Sha256;

namespace {

std::string hex(const uint8_t digest[32]) {
  std::string text;
  for (int i = 0; i < 32; ++i) {
    char pair[3];
    std::snprintf(pair, sizeof pair, "%02x", digest[i]);
    text += pair;
  }
  return text;
}

std::string sha256(const std::string& text, BlockFunction blocks) {
  Sha256 hash(blocks);
  hash.update(text.data(), text.size());
  uint8_t digest[32];
  hash.finish(digest);
  return hex(digest);
}

void known_answers(BlockFunction blocks) {
  CHECK(sha256("", blocks) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256("abc", blocks) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", blocks) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha256(std::string(1000000, 'a'), blocks) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

void lengths_and_splits(BlockFunction blocks) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 7);
  for (size_t length = 0; length <= text.size(); ++length) {
    const std::string head = text.substr(0, length);
    Sha256 pieces(blocks);
    for (size_t at = 0; at < length; at += 13)
      pieces.update(head.data() + at, std::min<size_t>(13, length - at));
    uint8_t digest[32];
    pieces.finish(digest);
    CHECK(hex(digest) == sha256(head, covenant::hash::sha256_blocks_portable));
  }
}

// Pieces of any lengths, hashed two at a time, have the digests of hashing each alone.
void pieces_in_pairs() {
  std::vector<uint8_t> data(5000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 31 + i / 256);
  for (const size_t count : {0u, 1u, 2u, 3u, 10u}) {
    std::vector<covenant::hash::Piece> pieces;
    for (size_t i = 0; i < count; ++i)
      pieces.push_back({data.data() + 3 * i, i == 2 ? 0 : 4096 - 129 * (i % 4)});
    for (const int threads : {1, 2, 3}) {
      covenant::ThreadPool pool(threads);
      std::vector<uint8_t> digests(32 * count + 1);
      covenant::hash::hash_pieces(pool, pieces, digests.data());
      for (size_t i = 0; i < count; ++i) {
        Sha256 alone(covenant::hash::sha256_blocks_portable);
        alone.update(pieces[i].data, pieces[i].bytes);
        uint8_t digest[32];
        alone.finish(digest);
        CHECK_SAME(digest, &digests[32 * i], 32);
      }
    }
  }
}

void merkle_roots() {
  uint8_t root[32];
  CHECK_OK(cov_merkle_root(nullptr, 0, root));
  CHECK(hex(root) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  std::vector<uint8_t> items(5 * 32);
  for (size_t i = 0; i < items.size(); ++i) items[i] = static_cast<uint8_t>(i);
  // By hand: ((0 1) (2 3)) 4
  auto leaf = [&](size_t i) {
    return std::string(1, '\0') + std::string(reinterpret_cast<char*>(&items[i * 32]), 32);
  };
  auto raw = [](const std::string& text) {
    uint8_t digest[32];
    cov_sha256(text.data(), text.size(), digest);
    return std::string(reinterpret_cast<char*>(digest), 32);
  };
  auto node = [&](const std::string& left, const std::string& right) {
    return raw("\x01" + left + right);
  };
  std::vector<std::string> leaves;
  for (size_t i = 0; i < 5; ++i) leaves.push_back(raw(leaf(i)));
  const std::string four = node(node(leaves[0], leaves[1]), node(leaves[2], leaves[3]));
  const std::string five = node(four, leaves[4]);
  CHECK_OK(cov_merkle_root(items.data(), 5, root));
  CHECK_SAME(root, five.data(), 32);
  CHECK_OK(cov_merkle_root(items.data(), 1, root));
  CHECK_SAME(root, leaves[0].data(), 32);
}

void state_root_sees_everything() {
  cov_tensor_info tensors[2] = {};
  std::snprintf(tensors[0].name, sizeof tensors[0].name, "a");
  tensors[0].rank = 2;
  tensors[0].dims[0] = 600;
  tensors[0].dims[1] = 1000;
  tensors[0].length = 600000;
  std::snprintf(tensors[1].name, sizeof tensors[1].name, "b");
  tensors[1].rank = 1;
  tensors[1].dims[0] = 5;
  tensors[1].dims[1] = 1;
  tensors[1].offset = 600000;
  tensors[1].length = 5;
  std::vector<float> parameters(600005, 0.5f);
  uint8_t one[32], two[32];
  CHECK_OK(cov_state_root(parameters.data(), parameters.size(), tensors, 2, 1, one));
  CHECK_OK(cov_state_root(parameters.data(), parameters.size(), tensors, 2, 3, two));
  CHECK_SAME(one, two, 32);
  for (const size_t at : {size_t{0}, size_t{262144}, size_t{599999}, size_t{600004}}) {
    parameters[at] = 0.75f;
    CHECK_OK(cov_state_root(parameters.data(), parameters.size(), tensors, 2, 1, two));
    CHECK(hex(one) != hex(two));
    parameters[at] = 0.5f;
  }
  tensors[1].name[0] = 'c';
  CHECK_OK(cov_state_root(parameters.data(), parameters.size(), tensors, 2, 1, two));
  CHECK(hex(one) != hex(two));
  CHECK_CODE(cov_state_root(parameters.data(), 600004, tensors, 2, 1, two), COV_INVALID_ARGUMENT);
  tensors[1].rank = 3;
  CHECK_CODE(cov_tensor_table_root(tensors, 2, two), COV_INVALID_ARGUMENT);
}

}  // namespace

int main() {
  known_answers(covenant::hash::sha256_blocks_portable);
#if defined(__x86_64__)
  if (covenant::hash::sha256_has_instructions()) {
    known_answers(covenant::hash::sha256_blocks_shani);
    lengths_and_splits(covenant::hash::sha256_blocks_shani);
  }
#endif
  lengths_and_splits(covenant::hash::sha256_blocks_portable);
  pieces_in_pairs();
  merkle_roots();
  state_root_sees_everything();
  TEST_MAIN_END("hash/sha256");
}
