// Runs supervised tuning and GRPO on one process, without network or proof, to choose settings.
//
//   node services/grail-rl/scripts/tune.ts --seeds 3 --pretrain-steps 300 --threads 2 \
//     --set policy.versions=25 --set supervised.learningRate=1e-3
//
// --set takes any setting of the configuration's `supervised` and `policy` sections. --checkpoint starts
// from a directory that a run handed over (data/grail-rl/jobs/<job>/source) in place of own pre-training.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { importCheckpoint } from "@covenant/checkpoints";
import { hotkeyFromSeed, sha256, toHex } from "@covenant/contracts";
import {
  arithmetic,
  arithmeticPromptCounts,
  buildAssignment,
  buildContract,
  selectGroups,
} from "@covenant/grail";
import { Model } from "@covenant/kernels";
import { stopTokens, Tokenizer } from "@covenant/models";
import { evaluate } from "../src/learn/evaluate.ts";
import { generateGroups } from "../src/learn/generate-group.ts";
import { trainPolicy } from "../src/learn/policy-step.ts";
import {
  heldOutLoss,
  sampleReplay,
  supervisedBatch,
  supervisedStep,
} from "../src/learn/supervised.ts";
import { policySchema, supervisedSchema } from "../src/settings.ts";
import { cacheFolder, laboratoryTokenizer, pretrained, say, shape } from "./laboratory.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1" },
    "pretrain-steps": { type: "string", default: "300" },
    threads: { type: "string", default: "2" },
    set: { type: "string", multiple: true, default: [] },
    checkpoint: { type: "string" },
  },
});
const threads = Number(values.threads);

/** Settings of the configuration with `--set section.name=value` applied. */
function settings() {
  const sections = { supervised: {}, policy: {} };
  for (const entry of values.set) {
    const [name, value] = entry.split("=");
    const [section, key] = name!.split(".");
    const target = section === "policy" ? sections.policy : sections.supervised;
    Object.assign(target, { [key!]: /^[a-z]/.test(value!) ? value : Number(value) });
  }
  return {
    supervised: supervisedSchema.parse(sections.supervised),
    policy: policySchema.parse(sections.policy),
  };
}

const { supervised, policy } = settings();

async function runSupervised(model: Model, tokenizer: Tokenizer, seed: number) {
  const started = performance.now();
  const lossBefore = await heldOutLoss(model, tokenizer, arithmetic);
  const replay = await sampleReplay(model, tokenizer, supervised, `laboratory-${seed}`);
  let steps = 0;
  let probe = 0;
  while (steps < supervised.maximumSteps) {
    const batch = supervisedBatch(steps, supervised, {
      tokenizer,
      environment: arithmetic,
      replay,
    });
    await supervisedStep(model, steps, batch, supervised);
    steps++;
    if (steps % supervised.probeEverySteps !== 0) continue;
    const result = await evaluate(model, tokenizer, arithmetic, {
      prompts: supervised.probePrompts,
      seed: 1n,
      heldOut: false,
      temperature: 1,
      maxNewTokens: policy.maxNewTokens,
    });
    probe = result.meanReward;
    if (probe >= supervised.targetReward) break;
  }
  const lossAfter = await heldOutLoss(model, tokenizer, arithmetic);
  const seconds = (performance.now() - started) / 1000;
  say(
    `  supervised: ${steps} steps, ${seconds.toFixed(1)} s, held-out loss ${lossBefore.toFixed(3)} ` +
      `-> ${lossAfter.toFixed(3)}, probe reward ${probe.toFixed(3)}`,
  );
}

async function runPolicy(model: Model, reference: Model, tokenizer: Tokenizer, seed: number) {
  const evaluation = {
    prompts: policy.evaluationPrompts,
    seed: 7n,
    heldOut: true,
    temperature: 1,
    maxNewTokens: policy.maxNewTokens,
  };
  const before = await evaluate(model, tokenizer, arithmetic, evaluation);
  const hotkey = hotkeyFromSeed(new Uint8Array(32).fill(1));
  const started = performance.now();
  for (let version = 0; version < policy.versions; version++) {
    const beacon = sha256(new TextEncoder().encode(`laboratory ${seed} ${version}`));
    const contract = buildContract({
      contractId: `laboratory-v${version}`,
      runId: "laboratory",
      policyVersion: version,
      checkpointRoot: beacon,
      environment: "arithmetic@1",
      sampling: {
        temperature: 1,
        topK: 0,
        topP: 1,
        maxNewTokens: policy.maxNewTokens,
        stopTokenIds: stopTokens(tokenizer),
      },
      groupSize: policy.groupSize,
      beaconBlock: version,
      beacon,
      deadlineBlock: version + 1,
    });
    const assignments = Array.from({ length: policy.groupsPerVersion }, (_, slot) =>
      buildAssignment(contract, slot, `g${slot}`),
    );
    const generated = await generateGroups(model, tokenizer, { contract, assignments }, hotkey);
    const groups = generated.map(({ commit }) => ({
      promptTokens: commit.completions[0]!.statement!.promptTokens,
      completions: commit.completions.map((completion) => completion.completionTokens),
      rewards: commit.claimedRewards,
    }));
    const selected = selectGroups(groups, policy.trainGroupsMax);
    const report = await trainPolicy(model, reference, selected, policy, {
      version,
      padToken: tokenizer.eosId,
    });
    const rewards = groups.flatMap((group) => group.rewards);
    const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
    if (version % 10 === 9) {
      say(
        `  version ${version + 1}: sampled reward ${mean.toFixed(3)}, ${selected.length} groups, ` +
          `kl ${report.kl.toFixed(4)}, entropy ${report.entropy.toFixed(3)}, ` +
          `clip ${report.clipShare.toFixed(3)}`,
      );
    }
  }
  const seconds = (performance.now() - started) / 1000;
  const after = await evaluate(model, tokenizer, arithmetic, evaluation);
  say(
    `  policy: ${policy.versions} versions, ${seconds.toFixed(1)} s, held-out reward ` +
      `${before.meanReward.toFixed(3)} -> ${after.meanReward.toFixed(3)} ` +
      `(+${(after.meanReward - before.meanReward).toFixed(3)}, ±${after.standardError.toFixed(3)})`,
  );
}

/** Tokenizer and weights to start from: a run's checkpoint, or a model pre-trained here. */
async function startingPoint() {
  const folder = values.checkpoint;
  if (folder === undefined) {
    const tokenizer = laboratoryTokenizer();
    const steps = Number(values["pretrain-steps"]);
    const parametersOf = (seed: number) => pretrained(tokenizer, { seed, steps, threads });
    return { tokenizer, parametersOf, name: String(steps) };
  }
  const files = readdirSync(folder)
    .filter((name) => !name.startsWith("."))
    .map((name) => ({ path: name, data: new Uint8Array(readFileSync(path.join(folder, name))) }));
  const { parameters } = importCheckpoint(files);
  const tokenizer = Tokenizer.fromJson(readFileSync(path.join(folder, "tokenizer.json"), "utf8"));
  const name = toHex(sha256(new Uint8Array(parameters.buffer))).slice(0, 8);
  mkdirSync(cacheFolder, { recursive: true });
  return { tokenizer, parametersOf: async () => parameters, name };
}

const { tokenizer, parametersOf, name } = await startingPoint();
say(`${arithmeticPromptCounts.train} training prompts, ${arithmeticPromptCounts.heldOut} held out`);
for (let seed = 1; seed <= Number(values.seeds); seed++) {
  say(`seed ${seed}`);
  const parameters = await parametersOf(seed);
  const model = await Model.create(shape, { threads, parameters });
  // Supervised tuning is the same for all settings of the policy: done once, then kept.
  const key = toHex(sha256(new TextEncoder().encode(JSON.stringify(supervised)))).slice(0, 8);
  const kept = path.join(cacheFolder, `tuned-${seed}-${name}-${key}.bin`);
  if (existsSync(kept)) {
    model.parameters.set(new Float32Array(new Uint8Array(readFileSync(kept)).buffer));
  } else {
    await runSupervised(model, tokenizer, seed);
    writeFileSync(kept, new Uint8Array(Float32Array.from(model.parameters).buffer));
  }
  const reference = await Model.create(shape, {
    threads,
    parameters: Float32Array.from(model.parameters),
  });
  // GRPO starts with fresh moments: those of supervised tuning point elsewhere.
  model.firstMoment.fill(0);
  model.secondMoment.fill(0);
  model.optimizerStepCount = 0;
  await runPolicy(model, reference, tokenizer, seed);
  model.close();
  reference.close();
}
