// From a model in memory to the registry.
import { buildManifest, exportCheckpoint, uploadCheckpoint } from "@covenant/checkpoints";
import { fromHex, toHex } from "@covenant/contracts";
import { type CheckpointManifest, CheckpointStage } from "@covenant/contracts/registry";
import type { TrainableModel } from "@covenant/kernels";
import { hasCode } from "@covenant/runtime";
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

const licence = "Apache-2.0";

/** Whether the registry has this publication already: an earlier attempt got through unheard. */
async function isPublished(
  { modules, signal }: PhaseContext,
  manifest: CheckpointManifest,
): Promise<boolean> {
  try {
    const { manifest: known } = await modules.registry.getManifest(
      { root: manifest.root },
      { signal },
    );
    return (
      known?.signature?.hotkey === modules.hotkey.address &&
      known.stage === manifest.stage &&
      known.version === manifest.version
    );
  } catch (error) {
    if (hasCode(error, "COV_CHECKPOINT_NOT_FOUND")) return false;
    throw error;
  }
}

/**
 * Uploads the model as a full checkpoint in fp32 and returns its root in hexadecimal. The root follows
 * from the content, so an upload that was cut off is taken up again, and one that succeeded unheard
 * is recognised. The model card says which stage it is: a release never has the root of the version
 * that it releases.
 */
export async function publish(
  context: PhaseContext,
  model: Pick<TrainableModel, "shape" | "read">,
  publication: Publication,
): Promise<string> {
  const { job, modules } = context;
  const { runId } = job;
  const { stage, version, evaluation = {} } = publication;
  const { files: tokenizerFiles } = await loadTokenizer(context);
  const name = `${stageNames.get(stage)} ${version}`;
  const files = exportCheckpoint(model.shape, await model.read("parameters"), tokenizerFiles, {
    dtype: "F32",
    card: { runId, stage: name, licence, evaluation },
  });
  const parentRoot = fromHex(publication.parentRoot);
  const createdAtMs = modules.clock.nowMs();
  const facts = { runId, stage, version, parentRoot, licence, evaluation, createdAtMs };
  const manifest = buildManifest(files, facts, modules.hotkey);
  const root = toHex(manifest.root);
  if (await isPublished(context, manifest)) return root;
  await uploadCheckpoint(modules.registry, files, manifest, { signal: context.signal });
  modules.logger.info({ root, ...publication }, "checkpoint published");
  return root;
}
