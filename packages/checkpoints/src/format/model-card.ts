// README.md of an exported model directory.
import type { ModelShape } from "./llama.ts";
import { parameterCount } from "./llama.ts";

/** What a model card says beyond the shape; absent parts are left out. */
export interface ModelCardFacts {
  runId?: string;
  /** For example "pretrain, round 12". */
  stage?: string;
  /** SPDX identifier. */
  licence?: string;
  /** Measured figures by name. */
  evaluation?: Readonly<Record<string, number>>;
}

/** Text of the card, with the YAML header that model hubs read. */
export function makeModelCard(shape: ModelShape, facts: ModelCardFacts): string {
  const header = [
    "---",
    "library_name: transformers",
    "pipeline_tag: text-generation",
    ...(facts.licence ? [`license: ${facts.licence.toLowerCase()}`] : []),
    "---",
  ];
  const rows: [string, string][] = [
    ["Parameters", parameterCount(shape).toLocaleString("en-US")],
    ["Layers", String(shape.layerCount)],
    ["Hidden size", String(shape.hiddenSize)],
    ["Heads (key/value)", `${shape.headCount} (${shape.kvHeadCount})`],
    ["Vocabulary", String(shape.vocabSize)],
    ["Context", `${shape.maxPositions} tokens`],
  ];
  const figures = Object.entries(facts.evaluation ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  const lines = [
    ...header,
    "",
    `# ${facts.runId ?? "Covenant Mesh model"}`,
    "",
    `A LLaMA-architecture language model trained by Covenant Mesh${facts.stage ? ` (${facts.stage})` : ""}.`,
    "",
    "| | |",
    "| --- | --- |",
    ...rows.map(([name, value]) => `| ${name} | ${value} |`),
    ...(figures.length > 0
      ? ["", "| Measured | |", "| --- | --- |", ...figures.map(([k, v]) => `| ${k} | ${v} |`)]
      : []),
    "",
    "```python",
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "",
    'model = AutoModelForCausalLM.from_pretrained(".")',
    'tokenizer = AutoTokenizer.from_pretrained(".")',
    "```",
    "",
  ];
  return lines.join("\n");
}
