#include "hash/pieces.h"

#include <algorithm>

#include "hash/sha256.h"

namespace covenant::hash {

void hash_pieces(ThreadPool& pool, const std::vector<Piece>& pieces, uint8_t* digests) {
  pool.run(static_cast<int64_t>((pieces.size() + 1) / 2), [&](int64_t task) {
    const auto i = static_cast<size_t>(task) * 2;
    const bool pair = i + 1 < pieces.size();
    const Piece& first = pieces[i];
    const Piece& second = pieces[pair ? i + 1 : i];
    Sha256 one, two;
    const size_t both =
        pair ? Sha256::update_pair(one, first.data, two, second.data,
                                   std::min(first.bytes, second.bytes))
             : 0;
    one.update(static_cast<const uint8_t*>(first.data) + both, first.bytes - both);
    one.finish(digests + 32 * i);
    if (!pair) return;
    two.update(static_cast<const uint8_t*>(second.data) + both, second.bytes - both);
    two.finish(digests + 32 * (i + 1));
  });
}

}  // namespace covenant::hash
