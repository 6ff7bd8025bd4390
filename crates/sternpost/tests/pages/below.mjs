// Follows every link of the dashboard below a path of its host, in a real browser: every request has to stay below the path
// and succeed. Prints how many pages there are; exits with 1 on the first fault.
// below.mjs ROOT BASE LINK
import { createRequire } from "node:module";
import assert from "node:assert/strict";

const [root, base, link] = process.argv.slice(2);
const require = createRequire(root + "/node_modules/");
const { chromium } = require("playwright-core");

const PASSWORD = "correct horse battery";
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
const context = await browser.newContext();
const page = await context.newPage();
const faults = [];
page.on("request", (request) => request.url().startsWith(base) || faults.push("a request to elsewhere: " + request.url()));
page.on("response", (response) => response.status() >= 400 && faults.push(`${response.status()} ${response.url()}`));
// Browsers ask each host for an icon by themselves.
const isIcon = (message) => message.location().url.endsWith("/favicon.ico");
page.on("console", (message) => message.type() === "error" && !isIcon(message) && faults.push(message.text()));

/** Follows all links from these pages; forms have to stay below the path too. */
async function crawl(paths) {
  const seen = new Set();
  const next = paths.map((path) => base + path);
  while (next.length > 0) {
    const url = next.shift().split("#")[0];
    if (seen.has(url)) continue;
    seen.add(url);
    // What is no page, or a download.
    if (/format=(csv|json)|\/quarantine\/\d+$|\/raw$/.test(url)) {
      assert.equal((await context.request.get(url)).status(), 200, url);
      continue;
    }
    const response = await page.goto(url);
    assert.equal(response.status(), 200, url);
    if (!response.headers()["content-type"].startsWith("text/html")) continue;
    const found = await page.evaluate(() => ({
      links: [...document.querySelectorAll("a[href]")].map((one) => one.href),
      forms: [...document.querySelectorAll("form")].map((one) => one.action),
      styled: document.styleSheets.length,
    }));
    assert.ok(found.styled > 0, `${url} has no style sheet`);
    for (const one of [...found.links, ...found.forms]) {
      const isOwn = one === base || one.startsWith(base + "/") || one.startsWith("otpauth:");
      assert.ok(isOwn || /^https:\/\/[a-z.]+\/[a-z/]+\/docs\/[a-z-]+\.md$/.test(one), `${url} leads to ${one}`);
    }
    next.push(...found.links.filter((one) => one.startsWith(base)));
  }
  return seen.size;
}

await page.goto(link);
await page.getByLabel(/^Password/).fill(PASSWORD);
await page.getByLabel(/^Repeat/).fill(PASSWORD);
await page.keyboard.press("Enter");
await page.waitForURL(base + "/");
assert.ok((await context.cookies()).every((cookie) => cookie.path === new URL(base).pathname));
let pages = await crawl(["/", "/dmarc", "/quarantine", "/account", "/domains/failing.example/check", "/check"]);
// A form, its redirect and the notice after it; then sign-out and sign-in.
await page.goto(base + "/account");
await page.getByLabel("Current password, to set up a second factor").fill(PASSWORD);
await page.getByRole("button", { name: "Set up a second factor" }).click();
await page.getByRole("status").filter({ hasText: /Add the key/ }).waitFor();
assert.ok(page.url().startsWith(base + "/account?said="));
await page.getByRole("button", { name: "Sign out" }).click();
await page.waitForURL(base + "/sign-in");
pages += await crawl(["/sign-in", "/check"]);
await page.goto(base + "/sign-in");
await page.getByLabel("Name").fill("operator");
await page.getByLabel("Password").fill(PASSWORD);
await page.getByRole("button", { name: "Sign in" }).click();
await page.waitForURL(base + "/");
assert.deepEqual(faults, []);
await browser.close();
console.log(`${pages} pages below the path, no fault`);
