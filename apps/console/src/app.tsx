// Frame of the page: header with the state of the connections, tabs, the chosen view.
import { signal } from "@preact/signals";
import type { FunctionComponent } from "preact";
import { connected, run } from "./data/store.ts";
import { Chat } from "./views/chat.tsx";
import { Jobs } from "./views/jobs.tsx";
import { Lineage } from "./views/lineage.tsx";
import { Peers } from "./views/peers.tsx";
import { PostTraining } from "./views/post-training.tsx";
import { Training } from "./views/training.tsx";

const tabs: Record<string, { title: string; view: FunctionComponent }> = {
  training: { title: "Training", view: Training },
  peers: { title: "Peers and rewards", view: Peers },
  lineage: { title: "Checkpoints", view: Lineage },
  post: { title: "Post-training", view: PostTraining },
  jobs: { title: "Jobs", view: Jobs },
  chat: { title: "Chat", view: Chat },
};

const tabOf = () => {
  const name = window.location.hash.slice(1);
  return name in tabs ? name : "training";
};
const current = signal(tabOf());
window.addEventListener("hashchange", () => {
  current.value = tabOf();
});

function Connections() {
  const missing = [...connected.value].filter(([, up]) => !up).map(([name]) => name);
  if (connected.value.size === 0) return <span class="quiet">connecting …</span>;
  if (missing.length === 0) return <span class="good">live</span>;
  return (
    <span class="quiet" title={missing.join(", ")}>
      waiting for {missing.filter((name) => name !== "scores").join(", ") || "scores"}
    </span>
  );
}

export function App() {
  const { view: View } = tabs[current.value]!;
  return (
    <>
      <header>
        <h1>Covenant Mesh</h1>
        <span class="run">{run.value?.runId ?? "no run yet"}</span>
        <Connections />
      </header>
      <nav aria-label="Views">
        {Object.entries(tabs).map(([name, { title }]) => (
          <a
            key={name}
            href={`#${name}`}
            aria-current={name === current.value ? "page" : undefined}
          >
            {title}
          </a>
        ))}
      </nav>
      <main>
        <View />
      </main>
    </>
  );
}
