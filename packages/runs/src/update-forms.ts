// The two forms in which an update may travel: its body, or the body packed. The first four bytes tell them apart and
// carry the version. Header and commitment are about the bytes that are sent; judging and merging work on the body.
import { isPackedUpdate, packUpdate, unpackUpdate } from "@covenant/kernels";
import { codecMode } from "@covenant/sparseloco";
import type { RunSetup } from "./run-setup.ts";

function formatOf({ run }: RunSetup) {
  const outer = run.outer!;
  return { keepPerChunk: outer.keepPerChunk, mode: codecMode(outer.codec) };
}

/** What a peer sends of a body: the smaller form. */
export async function sentForm(setup: RunSetup, body: Uint8Array): Promise<Uint8Array> {
  const packed = await packUpdate(body, setup.tensors, formatOf(setup));
  return packed.length < body.length ? packed : body;
}

/**
 * The body of what a peer sent, in either form. A packed one is validated and its size is the run's, whatever it claims: it
 * rejects with a COV_SPARSE_* when it is not the packed form of an update. A plain one is returned as it is.
 */
export async function bodyOf(setup: RunSetup, sent: Uint8Array): Promise<Uint8Array> {
  return isPackedUpdate(sent) ? unpackUpdate(sent, setup.tensors, formatOf(setup)) : sent;
}
