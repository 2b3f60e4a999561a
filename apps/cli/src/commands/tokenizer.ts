// `covenant tokenizer train`: a tokenizer from any text.
import { mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import { makeTokenizerConfig, trainTokenizer } from "@covenant/models";
import { CovenantError, writeFileAtomic } from "@covenant/runtime";
import type { Command } from "commander";

const vocabSizeMin = 260;
const vocabSizeMax = 65_536;

export function addTokenizerCommands(program: Command): void {
  program
    .command("tokenizer")
    .description("Tokenizers.")
    .command("train")
    .description(
      "Train a byte-level BPE tokenizer and write tokenizer.json and tokenizer_config.json.",
    )
    .argument("<text...>", "text files, UTF-8")
    .requiredOption("--out <directory>", "where to write the files")
    .option("--vocab-size <n>", "size of the vocabulary", "512")
    .action(train);
}

async function train(files: string[], flags: { out: string; vocabSize: string }): Promise<void> {
  const vocabSize = Number(flags.vocabSize);
  if (!Number.isInteger(vocabSize) || vocabSize < vocabSizeMin || vocabSize > vocabSizeMax) {
    throw new CovenantError("COV_CONFIG_INVALID", `--vocab-size is "${flags.vocabSize}".`, {
      remedy: `Give a whole number from ${vocabSizeMin} to ${vocabSizeMax}.`,
    });
  }
  const texts = await Promise.all(files.map((file) => readText(file)));
  const json = trainTokenizer(texts, { vocabSize });
  await mkdir(flags.out, { recursive: true });
  const write = (name: string, value: unknown) =>
    writeFileAtomic(path.join(flags.out, name), Buffer.from(`${JSON.stringify(value, null, 2)}\n`));
  await write("tokenizer.json", json);
  await write("tokenizer_config.json", makeTokenizerConfig());
  process.stdout.write(`${Object.keys(json.model.vocab).length} tokens in ${flags.out}\n`);
}

async function readText(file: string): Promise<string> {
  const bytes = await readFile(file).catch((error: unknown) => {
    throw new CovenantError("COV_CONFIG_INVALID", `${file} cannot be read.`, {
      remedy: "Name text files that exist.",
      cause: error,
    });
  });
  return new TextDecoder("utf-8", { fatal: false }).decode(bytes);
}
