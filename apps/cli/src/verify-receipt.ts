// Checks a receipt on this machine: takes the checkpoint it names, replays the completion, compares.
import { importCheckpoint } from "@covenant/checkpoints";
import type { Receipt } from "@covenant/contracts/grail";
import { exactThresholds, isVerified, reasonName, verifyReceipt } from "@covenant/grail";
import { Model } from "@covenant/kernels";

/** The outcome, in words. */
export interface ReceiptCheck {
  verified: boolean;
  reason: string;
  explanation: string;
}

/** A checkpoint whose content has been verified against its root. */
export interface VerifiedCheckpoint {
  root: Uint8Array;
  files: { path: string; data: Uint8Array }[];
}

/** Replays a receipt on the checkpoint; any hotkey may have signed unless `hotkey` names one. */
export async function checkReceipt(
  receipt: Receipt,
  checkpoint: VerifiedCheckpoint,
  hotkey?: string,
): Promise<ReceiptCheck> {
  const { shape, parameters } = importCheckpoint(checkpoint.files);
  const model = await Model.create(shape, { parameters, threads: 1 });
  try {
    const finding = await verifyReceipt(
      receipt,
      {
        checkpointRoot: checkpoint.root,
        vocabularySize: shape.vocabSize,
        thresholds: exactThresholds,
        ...(hotkey === undefined ? {} : { hotkey }),
      },
      async (request, fingerprint) => {
        const [replay] = await model.replay([request], { fingerprint });
        // Asked for with a key, so it is there.
        return { ...replay!, fingerprints: replay!.fingerprints ?? new Int8Array() };
      },
    );
    return {
      verified: isVerified(finding),
      reason: reasonName(finding.reason),
      explanation: finding.explanation,
    };
  } finally {
    model.close();
  }
}
