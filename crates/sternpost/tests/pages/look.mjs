// What every look at a page of the dashboard shares: the browser, the sign-in by keyboard, and what holds for each page
// whatever is on it. Scripts that use it are called with ROOT BASE SHOTS and their own arguments.
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import assert from "node:assert/strict";

const [root, base, shots] = process.argv.slice(2);
const require = createRequire(root + "/node_modules/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(shots, { recursive: true });

export { base, shots };
export const PASSWORD = "correct horse battery";
export const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
let count = 0;
export const looked = () => count;

/** A context for looks. The page's own policy would keep axe out. */
export const contextOf = (colorScheme, width, storageState) =>
  browser.newContext({ storageState, colorScheme, viewport: { width, height: 900 }, bypassCSP: true });

/** A picture of the page that is shown, and the accessibility rules. */
export async function inspect(page, name, called) {
  await page.screenshot({ path: `${shots}/${called.replace(/[^a-z0-9.-]+/g, "_")}-${name}.png`, fullPage: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  assert.ok(!wide, `${called} is wider than the screen at ${name}`);
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  assert.deepEqual(violations.map((one) => [one.id, one.nodes.map((node) => node.html)]), [], `${called} at ${name}`);
  count += 1;
}

/** Everything that a page must be, whatever is on it. Its picture is called after the path, or `called`. */
export async function look(page, path, name, called = path) {
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && !/40[0-9]/.test(message.text()) && errors.push(message.text()));
  page.on("request", (request) => assert.ok(request.url().startsWith(base) || request.url().startsWith("data:"), "a request to elsewhere: " + request.url()));
  const response = await page.goto(base + path);
  const size = (await response.body()).length;
  assert.ok(size < 80_000, `${path} has ${size} bytes`);
  await inspect(page, name, called);
  assert.deepEqual(errors, [], `${path} at ${name}`);
}

/** Takes an invitation by keyboard alone; returns the cookies. */
export async function welcome(link) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(link);
  await page.keyboard.press("Tab"); // skip to content
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
  await page.getByLabel(/^Password,/).focus();
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press("Tab");
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press("Enter");
  await page.waitForURL(base + "/");
  const state = await context.storageState();
  await context.close();
  return state;
}
