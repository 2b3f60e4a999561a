// Weights with optimiser state in one file, written whole or not at all.
import { bytesEqual, sha256 } from "@covenant/contracts";
import type { ModelShape, TrainableModel } from "@covenant/kernels";
import { type DeviceOptions, openModel } from "@covenant/models";
import { CovenantError, type Logger, readFileLimited, writeFileAtomic } from "@covenant/runtime";

const magic = "COVGRLW1";
const headerBytesMax = 64 << 10;
const fileBytesMax = 64 * 2 ** 30;

/** In the order of the file. */
const stateBuffers = ["parameters", "firstMoment", "secondMoment"] as const;

interface Header {
  shape: ModelShape;
  floats: number;
  optimizerStepCount: number;
  /** Steps done in the phase that wrote the file. */
  progress: number;
}

/** Writes a model's parameters, moments and step count; durable when it resolves. */
export async function saveWeights(
  path: string,
  model: Pick<TrainableModel, "shape" | "read" | "optimizerStepCount">,
  progress: number,
): Promise<void> {
  const arrays = await Promise.all(stateBuffers.map((buffer) => model.read(buffer)));
  const header: Header = {
    shape: model.shape,
    floats: arrays[0]!.length,
    optimizerStepCount: model.optimizerStepCount,
    progress,
  };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const bodyAt = magic.length + 4 + text.length;
  const file = new Uint8Array(bodyAt + arrays.length * 4 * header.floats + 32);
  file.set(new TextEncoder().encode(magic));
  new DataView(file.buffer).setUint32(magic.length, text.length, true);
  file.set(text, magic.length + 4);
  arrays.forEach((array, i) => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    file.set(bytes, bodyAt + i * 4 * header.floats);
  });
  file.set(sha256(file.subarray(0, -32)), file.length - 32);
  await writeFileAtomic(path, file);
}

/**
 * Opens a saved model. Throws COV_STATE_CORRUPT if a byte of the file changed since it was written.
 */
export async function loadWeights(
  path: string,
  options: DeviceOptions,
  modules: { logger: Logger },
): Promise<{ model: TrainableModel; progress: number }> {
  const file = await readFileLimited(path, fileBytesMax);
  const { header, bodyAt } = openFile(path, file);
  const array = (index: number) => {
    const from = bodyAt + index * 4 * header.floats;
    // A copy starts on an address that floats may lie on.
    return new Float32Array(file.slice(from, from + 4 * header.floats).buffer);
  };
  const model = await openModel(header.shape, options, { ...modules, parameters: array(0) });
  await model.write("firstMoment", array(1));
  await model.write("secondMoment", array(2));
  model.optimizerStepCount = header.optimizerStepCount;
  return { model, progress: header.progress };
}

function openFile(path: string, file: Uint8Array): { header: Header; bodyAt: number } {
  const corrupt = (what: string) =>
    new CovenantError("COV_STATE_CORRUPT", `The weights file ${path} ${what}.`, {
      remedy: "Remove the job's folder; the job starts again from the checkpoint.",
      metadata: { path },
    });
  const prefix = magic.length + 4;
  if (file.length < prefix + 32) throw corrupt("is cut short");
  if (!bytesEqual(sha256(file.subarray(0, -32)), file.subarray(-32))) {
    throw corrupt("does not match its checksum");
  }
  if (new TextDecoder().decode(file.subarray(0, magic.length)) !== magic) {
    throw corrupt("is of another kind");
  }
  const length = new DataView(file.buffer, file.byteOffset).getUint32(magic.length, true);
  if (length > headerBytesMax || prefix + length > file.length) throw corrupt("has a bad header");
  const text = new TextDecoder().decode(file.subarray(prefix, prefix + length));
  const header = JSON.parse(text) as Header;
  if (file.length !== prefix + length + 12 * header.floats + 32) throw corrupt("has a bad size");
  return { header, bodyAt: prefix + length };
}
