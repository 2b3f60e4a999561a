// `npm start`: set-up, then `covenant up` with the same arguments on the pinned Node.
import { spawn } from "node:child_process";
import path from "node:path";
import process from "node:process";
import { pinnedNode, root, setUp } from "./setup.mjs";

setUp();
const child = spawn(
  pinnedNode,
  [path.join(root, "apps", "cli", "src", "main.ts"), "up", ...process.argv.slice(2)],
  { cwd: root, stdio: "inherit" },
);
// The terminal sends Ctrl-C to the whole group; a supervisor sends a signal to this process alone.
for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
process.on("SIGINT", () => {});
child.on("exit", (code, signal) => process.exit(signal ? 130 : (code ?? 1)));
