// Who takes part, what their work was worth, and why.
import { closedRounds, scores, shortAddress } from "../data/store.ts";
import { Empty, ShareBar } from "../parts/figures.tsx";
import { Plot } from "../parts/plot.tsx";

const colours = [
  "#3d7a68",
  "#c2703d",
  "#5b6fb5",
  "#a8843a",
  "#8a5a9e",
  "#4d8fa8",
  "#b04f5f",
  "#6b7f3f",
];

function Improvements() {
  const rounds = closedRounds.value;
  const hotkeys = [
    ...new Set(rounds.flatMap((round) => round.verdicts.map((v) => v.hotkey))),
  ].sort();
  const series = hotkeys.map((hotkey, index) => ({
    label: shortAddress(hotkey),
    colour: colours[index % colours.length]!,
    values: rounds.map((round) => {
      const verdict = round.verdicts.find((candidate) => candidate.hotkey === hotkey);
      return verdict ? verdict.assignedImprovement : null;
    }),
  }));
  return (
    <Plot
      title="Loss improvement on assigned samples by peer, nats per token"
      xLabel="round"
      x={rounds.map((round) => round.round)}
      series={series}
    />
  );
}

export function Peers() {
  if (scores.value.length === 0) return <Empty>Nobody has been scored yet.</Empty>;
  const largest = Math.max(...scores.value.map((score) => score.weightShare), 0.01);
  return (
    <>
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">Peer</th>
              <th scope="col">Reward share</th>
              <th scope="col">Rating</th>
              <th scope="col">Proof of training</th>
              <th scope="col">Accepted</th>
              <th scope="col">Why</th>
            </tr>
          </thead>
          <tbody>
            {scores.value.map((score) => (
              <tr key={score.hotkey}>
                <td class="mono" title={score.hotkey}>
                  {shortAddress(score.hotkey)}
                </td>
                <td>
                  <ShareBar label="reward share" share={score.weightShare} scale={largest} />
                </td>
                <td class="number">
                  {score.mu.toFixed(1)} ± {score.sigma.toFixed(1)}
                </td>
                <td class="number">{score.bma.toFixed(2)}</td>
                <td class="number">
                  {score.roundsAccepted} of {score.roundsAccepted + score.roundsRejected}
                </td>
                <td>{score.reasons[0] ?? ""}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <Improvements />
    </>
  );
}
