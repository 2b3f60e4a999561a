// From a model in memory to the registry.
import { buildManifest, exportCheckpoint, uploadCheckpoint } from "@covenant/checkpoints";
import { fromHex, toHex } from "@covenant/contracts";
import { CheckpointStage } from "@covenant/contracts/registry";
import type { Model } from "@covenant/kernels";
import { loadTokenizer, type PhaseContext } from "./context.ts";

const stageNames = new Map<CheckpointStage, string>([
  [CheckpointStage.SFT, "fine-tuned"],
  [CheckpointStage.POLICY, "policy"],
  [CheckpointStage.RELEASE, "release"],
]);

/** What a checkpoint says about itself. */
export interface Publication {
  stage: CheckpointStage;
  version: number;
  /** Root of the checkpoint it continues, in hexadecimal. */
  parentRoot: string;
  evaluation?: Record<string, number>;
}

/**
 * Uploads the model as a full checkpoint in fp32 and returns its root in hexadecimal. Its root
 * follows from its content, so an upload that was cut off is taken up again.
 */
export async function publish(
  context: PhaseContext,
  model: Pick<Model, "shape" | "parameters">,
  publication: Publication,
): Promise<string> {
  const { job, modules } = context;
  const { files: tokenizerFiles } = await loadTokenizer(context);
  const files = exportCheckpoint(model.shape, model.parameters, tokenizerFiles, {
    dtype: "F32",
    // The card is content: a release has a root of its own even where its weights are the last policy's.
    card: {
      runId: job.runId,
      stage: `${stageNames.get(publication.stage)} ${publication.version}`,
      licence: "Apache-2.0",
      evaluation: publication.evaluation ?? {},
    },
  });
  const manifest = buildManifest(
    files,
    {
      runId: job.runId,
      stage: publication.stage,
      version: publication.version,
      parentRoot: fromHex(publication.parentRoot),
      licence: "Apache-2.0",
      evaluation: publication.evaluation ?? {},
      createdAtMs: modules.clock.nowMs(),
    },
    modules.hotkey,
  );
  await uploadCheckpoint(modules.registry, files, manifest);
  const root = toHex(manifest.root);
  modules.logger.info({ root, ...publication }, "checkpoint published");
  return root;
}
