// Rounds and the loss on text that nobody trained on.
import { RoundState } from "@covenant/contracts/gauntlet";
import { closedRounds, currentRound, run, shortAddress } from "../data/store.ts";
import { bytesText, Empty, Figure, Figures, hexText } from "../parts/figures.tsx";
import { Plot } from "../parts/plot.tsx";

const stateNames: Record<number, string> = Object.fromEntries(
  Object.entries(RoundState).map(([name, value]) => [
    value,
    name.toLowerCase().replaceAll("_", " "),
  ]),
);

/** Hashes in sentences are for machines: their beginning is enough for people. */
const shortened = (text: string) => text.replace(/\b([0-9a-f]{12})[0-9a-f]{20,}\b/g, "$1…");

function LossPlot() {
  const measured = closedRounds.value.filter((round) => round.heldOutBitsPerByte > 0);
  const initial = closedRounds.value[0]?.initialBitsPerByte;
  const x = [...(initial ? [0] : []), ...measured.map((round) => round.round + 1)];
  const y = [...(initial ? [initial] : []), ...measured.map((round) => round.heldOutBitsPerByte)];
  return (
    <Plot
      title="Held-out loss, bits per byte, after each round"
      xLabel="round"
      x={x}
      series={[
        {
          label: "bits per byte",
          colour: getComputedStyle(document.documentElement).getPropertyValue("--accent").trim(),
          values: y,
        },
      ]}
    />
  );
}

function RoundRows() {
  const rows = [...closedRounds.value].reverse().slice(0, 40);
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Round</th>
            <th scope="col">Contributors</th>
            <th scope="col">Refused</th>
            <th scope="col">Merged update</th>
            <th scope="col">State root</th>
            <th scope="col">Bits per byte</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((round) => {
            const manifest = round.signedManifest?.manifest;
            const refused = round.verdicts.filter((verdict) => verdict.reason !== 1);
            return (
              <tr key={round.round}>
                <td class="number">{round.round}</td>
                <td>{manifest?.contributors.length ?? 0}</td>
                <td>
                  {refused.map((verdict) => (
                    <span class="tag refused" key={verdict.hotkey} title={verdict.explanation}>
                      {shortAddress(verdict.hotkey)}
                    </span>
                  ))}
                </td>
                <td class="number">{bytesText(Number(manifest?.mergedBytes ?? 0n))}</td>
                <td class="mono">{manifest ? hexText(manifest.postStateRoot) : ""}</td>
                <td class="number">
                  {round.heldOutBitsPerByte > 0 ? round.heldOutBitsPerByte.toFixed(3) : ""}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

export function Training() {
  const round = currentRound.value;
  if (!round) return <Empty>The run has not opened its first round yet.</Empty>;
  const last = closedRounds.value.filter((closed) => closed.heldOutBitsPerByte > 0).at(-1);
  return (
    <>
      <Figures>
        <Figure name="Round">
          {closedRounds.value.length} of {run.value?.rounds ?? "?"}
        </Figure>
        <Figure name="State">{stateNames[round.state] ?? "unknown"}</Figure>
        <Figure name="Bits per byte">{last ? last.heldOutBitsPerByte.toFixed(3) : "—"}</Figure>
        <Figure name="Now" long>
          {shortened(round.reason) || "—"}
        </Figure>
      </Figures>
      <LossPlot />
      <RoundRows />
    </>
  );
}
