// `covenant up`: the show.
import { availableParallelism } from "node:os";
import { CovenantError, fromUnknown, systemClock, writeFileAtomic } from "@covenant/runtime";
import type { Command } from "commander";
import { prepareLayout } from "../mesh/layout.ts";
import { loadCast, Mesh, removeOldMesh } from "../mesh/mesh.ts";
import { checkUpFlags, type UpFlags, type UpOptions } from "../mesh/options.ts";
import { Renderer } from "../show/render.ts";
import { type Report, summaryLines } from "../show/report.ts";
import { initialShowState, type ShowState } from "../show/state.ts";
import { printError, terminal } from "../terminal.ts";

const redrawMs = 250;
const exitInterrupted = 130;

export function addUpCommand(program: Command): void {
  program
    .command("up")
    .description(
      "Start the whole mesh on this machine: train, judge, hand over, post-train, prove, serve.",
    )
    .option("--data <directory>", "where everything is kept", ".covenant/mesh")
    .option("--fresh", "start over: removes what an earlier run left in the data directory", false)
    .option("--once", "exit when the run is done instead of serving on", false)
    .option("--report <file>", "write the measured figures as JSON")
    .option("--preset <name>", "size of the run: demo, or tiny for a quick look", "demo")
    .option("--rounds <n>", "rounds of pre-training")
    .option("--seed <n>", "seed of initial weights and data assignment", "1")
    .option("--console-port <port>", "port of the web console; 0 takes any free one", "7480")
    .option("--api-port <port>", "port of the OpenAI-compatible endpoint", "7481")
    .option("--threads <n>", "engine threads of each participant", String(defaultThreads()))
    .option("--device <device>", "what models compute on: cpu, cuda, cuda:0,1, or auto", "cpu")
    .action(async (flags: UpFlags) => {
      process.exitCode = await up(checkUpFlags(flags));
    });
}

/** Participants share the cores already; one thread each wastes least. */
function defaultThreads(): number {
  return Math.max(1, Math.floor(availableParallelism() / 4));
}

async function up(options: UpOptions): Promise<number> {
  if (options.fresh) await removeOldMesh(options.dataDirectory, systemClock);
  const layout = await prepareLayout(options.dataDirectory);
  const cast = await loadCast(layout, options);
  const state = initialShowState({
    startedAtMs: systemClock.nowMs(),
    roundsPlanned: options.preset.rounds,
    peers: options.preset.peers.map(({ name, role }) => ({
      name,
      role,
      hotkey: cast.peers.get(name)?.hotkey.address ?? "",
    })),
  });
  const interrupted = interruptSignal();
  const renderer = new Renderer(terminal());
  const redraw = setInterval(() => renderer.draw(state, systemClock.nowMs()), redrawMs);
  const mesh = new Mesh(options, layout, cast, {
    clock: systemClock,
    state,
    signal: interrupted,
  });
  try {
    const report = await mesh.run();
    renderer.draw(state, systemClock.nowMs());
    renderer.finish();
    await finish(report, options, mesh, state, interrupted);
    return report.ok ? 0 : 1;
  } catch (error) {
    renderer.draw(state, systemClock.nowMs());
    renderer.finish();
    if (interrupted.aborted) {
      process.stdout.write("\nInterrupted; the next start resumes here.\n");
      return exitInterrupted;
    }
    printError(fromUnknown(error));
    return 1;
  } finally {
    clearInterval(redraw);
    await mesh.stop();
  }
}

async function finish(
  report: Report,
  options: UpOptions,
  mesh: Mesh,
  state: ShowState,
  interrupted: AbortSignal,
): Promise<void> {
  process.stdout.write(`\n${summaryLines(report).join("\n")}\n`);
  if (options.reportFile) {
    await writeFileAtomic(options.reportFile, Buffer.from(`${JSON.stringify(report, null, 2)}\n`));
    process.stdout.write(`\nReport: ${options.reportFile}\n`);
  }
  const { console: consoleUrl, api } = mesh.addresses;
  if (options.once) return;
  state.activity = "Serving.";
  process.stdout.write(
    `\nConsole  ${consoleUrl}\nChat     ${api}/v1  (OpenAI-compatible)\n\nCtrl-C stops everything; the next start resumes.\n`,
  );
  await new Promise<void>((resolve) => {
    if (interrupted.aborted) resolve();
    interrupted.addEventListener("abort", () => resolve());
  });
}

/** Aborted by the first Ctrl-C or SIGTERM; the second one does not wait for an orderly stop. */
function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  const onSignal = () => {
    if (controller.signal.aborted) process.exit(exitInterrupted);
    controller.abort(
      new CovenantError("COV_CANCELLED", "Interrupted.", { remedy: "Start again to resume." }),
    );
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return controller.signal;
}
