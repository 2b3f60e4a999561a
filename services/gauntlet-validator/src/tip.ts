import { bytesEqual, toHex } from "@covenant/contracts";
import { initialParameters, stateRoot } from "@covenant/kernels";
import { CovenantError } from "@covenant/runtime";
import { manifestHash } from "@covenant/sparseloco";
import type { Judge } from "./judge.ts";

/** Where the run stands: the state that the next round starts from. */
export type Tip = {
  /** Last signed round; -1 before the first. */
  round: number;
  root: Uint8Array;
  parameters: Float32Array;
  /** Hash of the last signed manifest; empty before the first. */
  manifestSha256: Uint8Array;
  /** Block at which the last signed round closed; 0 before the first. */
  closeBlock: number;
};

/** The tip from the stored rounds and parameter files; the run's beginning when there are none. */
export async function loadTip(judge: Judge): Promise<Tip> {
  const { book, files, setup } = judge;
  for (let round = await book.newestRound(); round >= 0; round -= 1) {
    const manifest = (await book.round(round))?.signed?.manifest;
    if (manifest === undefined) continue;
    const root = manifest.postStateRoot;
    const parameters = await files.loadParameters(round, root);
    const closeBlock = Number(manifest.closeBlock);
    return { round, root, parameters, manifestSha256: manifestHash(manifest), closeBlock };
  }
  const parameters = initialParameters(setup.shape, setup.run.seed);
  const root = await stateRoot(parameters, setup.tensors);
  if (!bytesEqual(root, setup.run.genesisStateRoot)) {
    throw new CovenantError("COV_RUN_INVALID", "the seed does not lead to the genesis root", {
      metadata: { ours: toHex(root), theirs: toHex(setup.run.genesisStateRoot) },
    });
  }
  return { round: -1, root, parameters, manifestSha256: new Uint8Array(), closeBlock: 0 };
}
