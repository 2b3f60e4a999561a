// Hand-off, fine-tuning and reinforcement learning with proven rollouts.

import { PostTrainingPhase } from "@covenant/contracts/grail";
import { signal } from "@preact/signals";
import { post, shortAddress } from "../data/store.ts";
import { bytesText, Empty, Figure, Figures, hexText } from "../parts/figures.tsx";
import { Plot } from "../parts/plot.tsx";

const phaseNames: Record<number, string> = Object.fromEntries(
  Object.entries(PostTrainingPhase).map(([name, value]) => [
    value,
    name.toLowerCase().replaceAll("_", " "),
  ]),
);

/** Rewards by step as they were seen; the service streams states, not history. */
const rewards = signal<ReadonlyMap<number, number>>(new Map());

post.subscribe((status) => {
  if (!status || status.phase !== PostTrainingPhase.GRPO || status.stepReward === 0) return;
  if (rewards.value.get(status.step) === status.stepReward) return;
  rewards.value = new Map(rewards.value).set(status.step, status.stepReward);
});

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
                  <span class="tag" key={reason}>
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
  const steps = [...rewards.value].sort(([a], [b]) => a - b);
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
      {steps.length > 0 && (
        <Plot
          title="Mean reward of the groups trained on, by step"
          xLabel="step"
          x={steps.map(([step]) => step)}
          series={[
            { label: "reward", colour: "#c2703d", values: steps.map(([, reward]) => reward) },
          ]}
        />
      )}
      <WorkerRows />
    </>
  );
}
