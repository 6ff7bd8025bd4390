// Looks at pages that are files: three widths, two themes, with the accessibility rules of axe-core, and
// nothing fetched from anywhere. Prints how many; exits with 1 on the first fault.
// one.mjs ROOT SHOTS FILE…
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import assert from "node:assert/strict";

const [root, shots, ...files] = process.argv.slice(2);
const require = createRequire(root + "/node_modules/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(shots, { recursive: true });
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
let looked = 0;
for (const file of files)
  for (const colorScheme of ["light", "dark"])
    for (const width of [360, 800, 1600]) {
      const at = `${basename(file)} at ${width} in ${colorScheme}`;
      const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, bypassCSP: true });
      const page = await context.newPage();
      const errors = [];
      page.on("pageerror", (error) => errors.push(String(error)));
      page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
      page.on("request", (request) => request.url() === "file://" + file || errors.push("a request: " + request.url()));
      await page.goto("file://" + file);
      assert.ok(!(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)), `${at} is wider than the screen`);
      for (const one of await page.$$("details")) await one.evaluate((node) => (node.open = true));
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
      assert.deepEqual(violations.map((fault) => [fault.id, fault.nodes.map((node) => node.html)]), [], at);
      assert.deepEqual(errors, [], at);
      await page.screenshot({ path: `${shots}/${basename(file, ".html")}-${width}-${colorScheme}.png`, fullPage: true });
      await context.close();
      looked += 1;
    }
await browser.close();
console.log(`${looked} looks at pages, no fault`);
