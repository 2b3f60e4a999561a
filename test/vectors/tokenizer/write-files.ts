// Trains the tokenizer of the demonstration and writes its files: node test/vectors/tokenizer/write-files.ts DIRECTORY
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer, trainTokenizer } from "@covenant/models";

const directory = process.argv[2];
if (!directory) throw new Error("Usage: write-files.ts DIRECTORY");
mkdirSync(directory, { recursive: true });
const text = readFileSync(new URL("../../../data/shakespeare.txt", import.meta.url), "utf8");
for (const { path, data } of Tokenizer.fromJson(trainTokenizer(text, { vocabSize: 512 })).toFiles()) {
  writeFileSync(join(directory, path), data);
}
