// Checkpoints and where each comes from.
import { CheckpointStage, type WatchCheckpointsResponse } from "@covenant/contracts/registry";
import { checkpoints } from "../data/store.ts";
import { bytesText, Empty, hexText } from "../parts/figures.tsx";

const stageNames: Record<number, string> = Object.fromEntries(
  Object.entries(CheckpointStage).map(([name, value]) => [
    value,
    name.toLowerCase().replaceAll("_", " "),
  ]),
);

/** What the version and the order say already. */
const toldByTitle = new Set(["final", "round"]);

function sizeOf({ manifest }: WatchCheckpointsResponse): number {
  return (manifest?.files ?? []).reduce((sum, file) => sum + Number(file.sizeBytes), 0);
}

function Entry({ seen }: { seen: WatchCheckpointsResponse }) {
  const { manifest } = seen;
  if (!manifest) return null;
  const figures = Object.entries(manifest.evaluation)
    .filter(([name]) => !toldByTitle.has(name))
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${value.toFixed(3)}`)
    .join(" · ");
  return (
    <li class={`stage-${stageNames[manifest.stage]?.replaceAll(" ", "-")}`}>
      <strong>
        {stageNames[manifest.stage]} {manifest.version}
      </strong>
      <span class="mono">{hexText(manifest.root, 16)}</span>
      <span class="quiet">
        {manifest.parentRoot.length > 0
          ? `from ${hexText(manifest.parentRoot, 8)}`
          : "first of its line"}
        {" · "}
        {bytesText(sizeOf(seen))} · {new Date(Number(manifest.createdAtMs)).toLocaleTimeString()}
      </span>
      {figures && <span>{figures}</span>}
    </li>
  );
}

export function Lineage() {
  if (checkpoints.value.length === 0) return <Empty>No checkpoint yet.</Empty>;
  return (
    <ol class="lineage" aria-label="Checkpoints, oldest first">
      {checkpoints.value.map((seen) => (
        <Entry key={String(seen.sequence)} seen={seen} />
      ))}
    </ol>
  );
}
