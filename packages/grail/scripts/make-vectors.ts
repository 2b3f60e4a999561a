// Writes test/vectors/grail/proof-v1.json. A change of that file is a change of protocol.
import { mkdirSync, writeFileSync } from "node:fs";
import { makeVectors } from "../src/vectors.fixture.ts";

const folder = new URL("../../../test/vectors/grail/", import.meta.url);
mkdirSync(folder, { recursive: true });
const text = `${JSON.stringify(makeVectors(), undefined, 2)}\n`;
writeFileSync(new URL("proof-v1.json", folder), text);
