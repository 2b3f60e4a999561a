// `npm test`: set-up on whatever Node there is, then every stage on the pinned one. Everything that must hold, cheapest
// first; `npm test -- --only unit,kernels` runs a part.
import { spawnSync } from "node:child_process";
import path from "node:path";
import process from "node:process";
import { pinnedNode, root, setUp } from "./setup.mjs";
import { installPrerequisites } from "./test-prerequisites.mjs";

installPrerequisites();
setUp();
const stages = path.join(root, "scripts", "test-stages.mjs");
const { status } = spawnSync(pinnedNode, [stages, ...process.argv.slice(2)], { stdio: "inherit" });
process.exit(status ?? 1);
