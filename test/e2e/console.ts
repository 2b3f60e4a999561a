// The console in a real browser.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import type { TestContext } from "node:test";
import { chromium } from "playwright-core";

const browserPaths = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const launchArguments = [
  "--no-sandbox",
  "--disable-dev-shm-usage",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Opens every tab, reads live data out of it, asks a question in the chat. Pictures go where COVENANT_SCREENSHOTS says. */
export async function checkConsole(
  context: TestContext,
  url: string,
  rounds: number,
): Promise<void> {
  const executablePath = browserPaths.find((candidate) => existsSync(candidate));
  if (!executablePath) {
    if (process.env.CI === "true")
      assert.fail("Chromium is missing (Debian: apt-get install chromium)");
    context.skip("Chromium is not installed (Debian: apt-get install chromium)");
    return;
  }
  const browser = await chromium.launch({ executablePath, args: launchArguments });
  try {
    const page = await browser.newPage({ viewport: { width: 1100, height: 900 } });
    const faults: string[] = [];
    page.on("pageerror", (error) => faults.push(String(error)));
    await page.goto(url);
    await page.getByText("live", { exact: true }).waitFor({ timeout: 30_000 });
    await page.getByText(`${rounds} of ${rounds}`).first().waitFor({ timeout: 30_000 });
    const sideways = async (where: string) => {
      const overflow = await page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth",
      );
      assert.equal(overflow, 0, `${where} pushes the page sideways`);
    };
    const picture = async (name: string) => {
      const folder = process.env.COVENANT_SCREENSHOTS;
      await sideways(name);
      if (folder) await page.screenshot({ path: `${folder}/console-${name}.png`, fullPage: true });
    };
    await page.locator("canvas").first().waitFor();
    assert.equal(await page.locator(".scroll tbody tr").count(), Math.min(rounds, 40));
    await picture("training");

    await page.getByRole("link", { name: "Peers and rewards" }).click();
    await page
      .getByRole("img", { name: /reward share/ })
      .first()
      .waitFor();
    assert.ok((await page.locator("tbody tr").count()) >= 6);
    await picture("peers");

    await page.getByRole("link", { name: "Checkpoints" }).click();
    await page.getByText("release", { exact: false }).first().waitFor();
    await picture("checkpoints");

    await page.getByRole("link", { name: "Post-training" }).click();
    await page.getByText("finished").first().waitFor();
    await page.locator("canvas").first().waitFor();
    await picture("post-training");

    await page.getByRole("link", { name: "Jobs" }).click();
    await page.getByRole("heading", { name: /pretraining/ }).waitFor();
    await picture("jobs");

    await page.getByRole("link", { name: "Chat" }).click();
    await page.getByLabel(/Ask the model/).fill("3+4=");
    await page.getByRole("button", { name: "Ask" }).click();
    await page.getByRole("link", { name: "receipt" }).waitFor({ timeout: 30_000 });
    await picture("chat");

    // Phone width: nothing may push the page sideways.
    await page.setViewportSize({ width: 390, height: 800 });
    for (const name of ["Training", "Peers and rewards", "Post-training", "Jobs", "Chat"]) {
      await page.getByRole("link", { name, exact: true }).click();
      // The plots follow their width when they are told of it, a frame later.
      await page.evaluate("new Promise((done) => setTimeout(done, 200))");
      await picture(`phone-${name.toLowerCase().replaceAll(" ", "-")}`);
    }
    assert.deepEqual(faults, []);
  } finally {
    await browser.close();
  }
}
