import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import type {
  Inference,
  VerifyReceiptRequest,
  VerifyReceiptResponse,
} from "@covenant/contracts/basilica";
import { ModelSchema, VerifyReceiptResponseSchema } from "@covenant/contracts/basilica";
import { exactThresholds, isVerified, verifyReceipt } from "@covenant/grail";
import { modelConfigOf } from "@covenant/models";
import { CovenantError } from "@covenant/runtime";
import type { BeaconSource } from "./beacon.ts";
import type { Completer } from "./completer.ts";
import { prepareCompletion } from "./completion-request.ts";
import type { ReceiptStore } from "./receipt-store.ts";
import type { ServedModel } from "./served-model.ts";

interface Modules {
  readonly served: ServedModel;
  readonly completer: Completer;
  readonly receipts: ReceiptStore;
  readonly beacons: BeaconSource;
}

/** Handlers of basilica.v1.Inference at a replica. */
export function replicaService(modules: Modules): ServiceImpl<typeof Inference> {
  const { served, completer, receipts } = modules;
  const { shape } = served.model;
  const description = create(ModelSchema, {
    id: served.id,
    checkpointRoot: served.root,
    createdAtMs: BigInt(served.createdAtMs),
    config: modelConfigOf(shape),
  });
  return {
    listModels: () => ({ models: [description] }),
    complete: (request, context) =>
      completer.complete(prepareCompletion(request, served), context.signal),
    async getReceipt({ completionId, choice }) {
      return { receipt: await receipts.get(completionId, choice) };
    },
    verifyReceipt: (request) => verify(request, modules),
  };
}

async function verify(
  { receipt }: VerifyReceiptRequest,
  { served, beacons }: Modules,
): Promise<VerifyReceiptResponse> {
  const statement = receipt?.commitment?.statement;
  if (receipt === undefined || statement === undefined) {
    throw new CovenantError("COV_INVALID_ARGUMENT", "the receipt or its statement is missing");
  }
  const { model, root, tokenizer } = served;
  const length = statement.promptTokens.length + (receipt.commitment?.completionTokens.length ?? 0);
  if (length > model.shape.maxPositions) {
    throw new CovenantError("COV_CONTEXT_TOO_LONG", `the receipt covers ${length} tokens`);
  }
  const beacon = await beacons.randomnessOf(Number(statement.beaconBlock));
  const context = {
    checkpointRoot: root,
    vocabularySize: tokenizer.vocabSize,
    thresholds: exactThresholds,
    ...(beacon !== undefined && { beacon }),
  };
  const finding = await verifyReceipt(receipt, context, async (request, fingerprint) => {
    const [replay] = await model.replay([request], { fingerprint });
    return { ...replay!, fingerprints: replay!.fingerprints! };
  });
  const { reason, explanation, measurements } = finding;
  return create(VerifyReceiptResponseSchema, {
    verified: isVerified(finding),
    reason,
    explanation,
    ...(measurements !== undefined && { measurements }),
  });
}
