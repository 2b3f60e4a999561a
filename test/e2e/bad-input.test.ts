// What people do wrong and what machines lack: one clear sentence each, an exit code, nothing lost.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { cliEntry, repository } from "../support/mesh-process.ts";

const commandTimeoutMs = 120_000;
const exitUsage = 64;

function covenant(...args: string[]) {
  return spawnSync(process.execPath, [cliEntry, ...args], {
    cwd: repository,
    encoding: "utf8",
    timeout: commandTimeoutMs,
    env: { ...process.env, NODE_NO_WARNINGS: "1" },
  });
}

function scratch(): string {
  return mkdtempSync(path.join(tmpdir(), "covenant-bad-"));
}

describe("wrong input to the covenant command", () => {
  it("names an unknown flag and the one that was meant", () => {
    const { status, stderr } = covenant("up", "--frsh");
    assert.equal(status, exitUsage);
    assert.match(stderr, /--frsh/);
    assert.match(stderr, /--fresh/);
  });

  it("names every wrong value at once", () => {
    const { status, stderr } = covenant(
      "up",
      "--rounds",
      "none",
      "--api-port",
      "99999",
      "--preset",
      "huge",
      "--device",
      "gpu",
    );
    assert.equal(status, exitUsage);
    for (const part of ["--rounds", "--api-port", "--preset", "--device", "COV_CONFIG_INVALID"]) {
      assert.ok(stderr.includes(part), `${part} is missing in: ${stderr}`);
    }
  });

  it("says which port is in use and how to choose another", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const directory = scratch();
    try {
      const { status, stderr } = covenant(
        "up",
        "--data",
        directory,
        "--console-port",
        "0",
        "--api-port",
        String(port),
      );
      assert.equal(status, 1);
      assert.match(stderr, new RegExp(`Port ${port} .* is in use`));
      assert.match(stderr, /--api-port/);
    } finally {
      server.close();
      rmSync(directory, { recursive: true });
    }
  });

  it("does not remove a directory that is no mesh", () => {
    const directory = scratch();
    writeFileSync(path.join(directory, "thesis.txt"), "the only copy");
    const { status, stderr } = covenant("up", "--fresh", "--data", directory);
    assert.notEqual(status, 0);
    assert.match(stderr, /nothing was removed/);
    assert.deepEqual(readdirSync(directory), ["thesis.txt"]);
    rmSync(directory, { recursive: true });
  });

  it("says what a corrupt key file is and how to go on", () => {
    const directory = scratch();
    mkdirSync(path.join(directory, "identities"));
    writeFileSync(path.join(directory, "identities", "owner.seed"), "not a key\n");
    const { status, stderr } = covenant(
      "up",
      "--data",
      directory,
      "--api-port",
      "0",
      "--console-port",
      "0",
    );
    assert.equal(status, 1);
    assert.match(stderr, /owner\.seed does not hold a key of 64/);
    assert.match(stderr, /COV_IDENTITY_CORRUPT/);
    rmSync(directory, { recursive: true });
  });

  it("says that there is no mesh to verify against", () => {
    const directory = scratch();
    writeFileSync(path.join(directory, "receipt.pb"), "garbage");
    const { status, stderr } = covenant(
      "verify",
      path.join(directory, "receipt.pb"),
      "--data",
      directory,
    );
    assert.equal(status, 1);
    assert.match(stderr, /COV_RECEIPT_MALFORMED/);
    rmSync(directory, { recursive: true });
  });
});

describe("a machine that lacks something", () => {
  it("says in one sentence which tools to install when there is no compiler", () => {
    const empty = scratch();
    const { status, stderr } = spawnSync(
      process.execPath,
      [path.join(repository, "scripts/build-kernels.mjs"), "--force"],
      {
        encoding: "utf8",
        timeout: commandTimeoutMs,
        env: { PATH: empty, HOME: empty },
      },
    );
    assert.equal(status, 1);
    assert.match(stderr, /cmake/i);
    assert.match(stderr, /apt-get install|brew install/);
    assert.equal(stderr.trim().split("\n").length, 1);
    rmSync(empty, { recursive: true });
  });

  it("says that the disk is full, and leaves no half-written state", (context) => {
    const mount = scratch();
    const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=200k", "tmpfs", mount]);
    if (mounted.status !== 0) {
      if (process.env.CI === "true")
        assert.fail("A small file system cannot be mounted: run as root");
      context.skip("needs root to mount a small file system");
      return;
    }
    try {
      writeFileSync(path.join(mount, "ballast"), Buffer.alloc(150 << 10));
      const { status, stderr } = covenant(
        "tokenizer",
        "train",
        "data/shakespeare.txt",
        "--vocab-size",
        "4096",
        "--out",
        path.join(mount, "out"),
      );
      assert.equal(status, 1);
      assert.match(stderr, /COV_DISK_FULL/);
      assert.equal(existsSync(path.join(mount, "out", "tokenizer.json")), false);
    } finally {
      spawnSync("umount", [mount]);
      rmSync(mount, { recursive: true, force: true });
    }
  });
});
