/** The consensus arithmetic of this package on fixed inputs, as plain JSON for any language. */
import { create } from "@bufbuild/protobuf";
import { canonicalBytes, toHex } from "@covenant/contracts";
import { ProofStatementSchema } from "@covenant/contracts/grail";
import { arithmetic } from "./arithmetic.ts";
import { challengePositions } from "./challenge.ts";
import { statementKey } from "./check-commitment.ts";
import { groupSlot } from "./contract.ts";
import { evaluationSeed, trainSeed } from "./environment.ts";
import { commitCompletion, recordLeaf, tokenRecords } from "./records.ts";
import { environmentHash, fingerprintSeed, samplingSeed } from "./seeds.ts";
import { toyContract, toyGroup } from "./toy-model.fixture.ts";

const bytes = (length: number, first: number) =>
  Uint8Array.from({ length }, (_, i) => (first + 7 * i) & 0xff);

/** All vectors; equal on every machine. */
export function makeVectors() {
  const beacon = bytes(32, 1);
  const checkpointRoot = bytes(32, 2);
  const promptTokens = [257, 20, 10, 19, 28, 259, 258];
  const records = tokenRecords(
    {
      tokens: [22, 259],
      logProbs: [-0.25, -1.5],
      fingerprints: Int8Array.from({ length: 8 }, (_, i) => 31 * i - 128),
    },
    4,
  );
  const statement = create(ProofStatementSchema, {
    contractId: "run-v1-0",
    checkpointRoot,
    environmentHash: environmentHash("arithmetic@1", 5n),
    sampling: toyContract.sampling!,
    promptTokens,
    beaconBlock: 77n,
    beacon,
    rolloutIndex: 9,
  });
  return {
    magic: "covenant.vectors.grail",
    version: 1,
    command: "node packages/grail/scripts/make-vectors.ts",
    samplingSeeds: [0, 1, 4_294_967_295].map((rolloutIndex) => ({
      beacon: toHex(beacon),
      checkpointRoot: toHex(checkpointRoot),
      promptTokens,
      rolloutIndex,
      seed: toHex(samplingSeed({ beacon, checkpointRoot, promptTokens, rolloutIndex })),
    })),
    fingerprintSeed: toHex(fingerprintSeed(beacon, checkpointRoot)),
    environmentHash: toHex(environmentHash("arithmetic@1", 5n)),
    challenges: [1, 2, 16, 17, 100, 32_768].map((count) => ({
      randomness: toHex(bytes(32, 3)),
      recordRoot: toHex(bytes(32, 4)),
      rolloutIndex: 11,
      count,
      positions: challengePositions({
        randomness: bytes(32, 3),
        recordRoot: bytes(32, 4),
        rolloutIndex: 11,
        count,
      }),
    })),
    slots: [0, 1, 4095].map((slot) => {
      const { environmentSeed, firstRolloutIndex } = groupSlot(toyContract, slot);
      return { slot, environmentSeed: environmentSeed.toString(), firstRolloutIndex };
    }),
    episodes: [trainSeed(0n), trainSeed(12_345n), evaluationSeed(0n), evaluationSeed(99n)].map(
      (seed) => {
        const { messages, answer } = arithmetic.reset(seed);
        return { seed: seed.toString(), prompt: messages[0]!.content, answer };
      },
    ),
    records: {
      leaves: records.map((record) => toHex(recordLeaf(record))),
      root: toHex(commitCompletion(statement, records).recordRoot),
    },
    statement: {
      canonical: toHex(canonicalBytes(ProofStatementSchema, statement)),
      key: statementKey(statement),
    },
    // Longer than the number of opened positions: draws, record root and openings of a whole group.
    group: toyGroup({ weights: "vectors" }, {}, 2).commit.completions.map((completion, i) => ({
      tokens: completion.completionTokens,
      recordRoot: toHex(completion.recordRoot),
      opened: toyGroup({ weights: "vectors" }, {}, 2).openings[i]!.openings.map(
        (opening) => opening.record!.position,
      ),
    })),
  };
}
