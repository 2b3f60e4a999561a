// Hand-off, fine-tuning and reinforcement learning with proven rollouts.

import { PostTrainingPhase } from "@covenant/contracts/grail";
import { CheckpointStage } from "@covenant/contracts/registry";
import { computed } from "@preact/signals";
import { checkpoints, post, shortAddress } from "../data/store.ts";
import { bytesText, Empty, Figure, Figures, hexText } from "../parts/figures.tsx";
import { Plot } from "../parts/plot.tsx";

const phaseNames: Record<number, string> = Object.fromEntries(
  Object.entries(PostTrainingPhase).map(([name, value]) => [
    value,
    name.toLowerCase().replaceAll("_", " "),
  ]),
);

/** Reward of every policy version, as its checkpoint tells: the service itself streams states, not history. */
const rewards = computed(() =>
  checkpoints.value.flatMap(({ manifest }) => {
    const reward = manifest?.evaluation.step_reward;
    if (manifest?.stage !== CheckpointStage.POLICY || reward === undefined) return [];
    return [{ version: manifest.version, reward }];
  }),
);

function WorkerRows() {
  const workers = Object.entries(post.value?.workers ?? {}).sort(([a], [b]) => a.localeCompare(b));
  if (workers.length === 0) return null;
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Rollout worker</th>
            <th scope="col">Proven groups</th>
            <th scope="col">Rejected groups</th>
          </tr>
        </thead>
        <tbody>
          {workers.map(([hotkey, tally]) => (
            <tr key={hotkey}>
              <td class="mono" title={hotkey}>
                {shortAddress(hotkey)}
              </td>
              <td class="number">{tally.accepted}</td>
              <td>
                {Object.entries(tally.rejected).map(([reason, count]) => (
                  <span class="tag refused" key={reason}>
                    {count} {reason.replaceAll("_", " ")}
                  </span>
                ))}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function PostTraining() {
  const status = post.value;
  if (!status) return <Empty>Post-training has not begun.</Empty>;
  return (
    <>
      <Figures>
        <Figure name="Phase">{phaseNames[status.phase] ?? "unknown"}</Figure>
        <Figure name="Hand-off">
          {status.handoff && status.handoff.bytes > 0n
            ? `${bytesText(Number(status.handoff.bytes))} in ${status.handoff.seconds.toFixed(2)} s`
            : "—"}
        </Figure>
        <Figure name="Fine-tuning loss">
          {status.sftLossBefore > 0
            ? `${status.sftLossBefore.toFixed(3)} → ${(status.sftLossAfter || status.loss).toFixed(3)}`
            : "—"}
        </Figure>
        <Figure name="Mean reward">
          {status.phase >= PostTrainingPhase.GRPO
            ? `${status.rewardBefore.toFixed(3)} → ${(status.rewardAfter || status.stepReward).toFixed(3)}`
            : "—"}
        </Figure>
        <Figure name="Policy">
          version {status.policyVersion}
          {status.policyRoot.length > 0 ? `, ${hexText(status.policyRoot, 8)}` : ""}
        </Figure>
      </Figures>
      {status.reason && <p>{status.reason}</p>}
      {rewards.value.length > 0 && (
        <Plot
          title="Mean reward of the groups trained on, by policy version"
          xLabel="version"
          x={rewards.value.map(({ version }) => version)}
          series={[
            {
              label: "reward",
              colour: "#c2703d",
              values: rewards.value.map(({ reward }) => reward),
            },
          ]}
        />
      )}
      <WorkerRows />
    </>
  );
}
