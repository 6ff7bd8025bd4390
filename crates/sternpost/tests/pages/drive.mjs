// Drives a real browser over every page: three widths, two themes, with the accessibility rules of
// axe-core, by keyboard alone, and as an attacker. Prints what it did; exits with 1 on the first fault.
// drive.mjs ROOT BASE OPERATOR_LINK READER_LINK SHOTS
import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import assert from "node:assert/strict";

const [root, base, operatorLink, readerLink, shots] = process.argv.slice(2);
const require = createRequire(root + "/node_modules/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(shots, { recursive: true });

const PASSWORD = "correct horse battery";
const PAGES = ["/", "/?q=nothing-like-it", "/domains/failing.example", "/domains/ready.example", "/domains/new.example",
  "/reports", "/reports?domain=failing.example&failed=on", "/reports/1", "/dmarc", "/dmarc?domain=failing.example", "/quarantine", "/senders", "/journal", "/sending", "/settings", "/account", "/domains/failing.example/check", "/check", "/check?domain=no+domain", "/nothing-here"];
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
let looked = 0;

/** Everything that a page must be, whatever is on it. */
async function look(page, path, name) {
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && !/40[0-9]/.test(message.text()) && errors.push(message.text()));
  page.on("request", (request) => assert.ok(request.url().startsWith(base) || request.url().startsWith("data:"), "a request to elsewhere: " + request.url()));
  const response = await page.goto(base + path);
  const size = (await response.body()).length;
  assert.ok(size < 60_000, `${path} has ${size} bytes`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  assert.ok(!wide, `${path} is wider than the screen at ${name}`);
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  assert.deepEqual(violations.map((one) => [one.id, one.nodes.map((node) => node.html)]), [], `${path} at ${name}`);
  assert.deepEqual(errors, [], `${path} at ${name}`);
  await page.screenshot({ path: `${shots}/${path.replace(/[^a-z.-]+/g, "_")}-${name}.png`, fullPage: true });
  looked += 1;
}

/** The cookie of the session. */
const session = async (context) => (await context.cookies()).find((cookie) => cookie.name === "sternpost");

/** What was just done is said on the page that follows. */
const said = (page, hasText) => page.getByRole("status").filter({ hasText }).waitFor();

/** Takes an invitation by keyboard alone; returns the cookies. */
async function welcome(link) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(link);
  await page.keyboard.press("Tab"); // skip to content
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
  await page.keyboard.press("Tab");
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press("Tab");
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press("Enter");
  await page.waitForURL(base + "/");
  const state = await context.storageState();
  await context.close();
  return state;
}

const operator = await welcome(operatorLink);
const reader = await welcome(readerLink);

for (const colorScheme of ["light", "dark"]) {
  for (const width of [360, 820, 1440]) {
    // The page's own policy would keep axe out.
    const context = await browser.newContext({ storageState: operator, colorScheme, viewport: { width, height: 900 }, bypassCSP: true });
    const page = await context.newPage();
    for (const path of PAGES) await look(page, path, `${width}-${colorScheme}`);
    await context.close();
    const stranger = await browser.newContext({ colorScheme, viewport: { width, height: 900 }, bypassCSP: true });
    await look(await stranger.newPage(), "/sign-in", `${width}-${colorScheme}`);
    await stranger.close();
  }
}

// With its policy in force, no string of a report runs, and the button copies.
{
  const context = await browser.newContext({ storageState: operator, permissions: ["clipboard-read", "clipboard-write"] });
  const page = await context.newPage();
  page.on("dialog", () => assert.fail("a string of a report ran"));
  for (const path of PAGES) {
    await page.goto(base + path);
    assert.equal(await page.evaluate(() => window.owned), undefined);
    assert.equal(await page.locator("script:not([src])").count(), 0);
    assert.equal(await page.locator("[onclick],[onerror],img").count(), 0);
  }
  await page.goto(base + "/domains/ready.example");
  assert.ok((await page.locator("main").innerText()).includes("ready.example"));
  const paste = page.locator("pre.copy").last();
  await paste.locator("+ button").click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await paste.innerText());
  await context.close();
}

// Without JavaScript all the same is there; an operator approves, holds and excuses by keyboard.
{
  const context = await browser.newContext({ storageState: operator, javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(base + "/domains/ready.example");
  await page.getByRole("button", { name: "Approve enforcement" }).focus();
  await page.keyboard.press("Enter");
  await said(page, /is allowed/);
  await page.getByLabel(/Reason to stay in testing/).focus();
  await page.keyboard.type("the backup MX is being moved");
  await page.keyboard.press("Enter");
  await said(page, /stays in testing/);
  assert.match(await page.locator("main").innerText(), /Held in testing: the backup MX is being moved \(operator/);
  await page.goto(base + "/domains/failing.example");
  await page.getByLabel(/does not count/).first().fill("known: mx1 is switched off");
  await page.getByRole("button", { name: /^Excuse/ }).first().click();
  await said(page, /does not count/);
  assert.match(await page.locator("main").innerText(), /Excused causes/);
  await page.getByRole("button", { name: /count again/ }).click();
  await said(page, /counts again/);
  await page.goto(base + "/journal");
  const journal = await page.locator("main").innerText();
  for (const line of ["enforcement allowed", "held in testing. Reason: the backup MX", "does not count. Reason: known", "counts again"]) {
    assert.ok(journal.includes(line), line);
  }
  // To go against the evidence takes a reason.
  await page.goto(base + "/domains/failing.example");
  assert.ok(await page.getByLabel(/Reason to enforce anyway/).isVisible());
  await context.close();
}

// Who may look sees no form that changes something, and can't send one.
{
  const context = await browser.newContext({ storageState: reader });
  const page = await context.newPage();
  await page.goto(base + "/domains/failing.example");
  assert.equal(await page.locator("main form[method=post]").count(), 0);
  const word = await page.locator("header input[name=word]").inputValue();
  for (const path of ["/domains/failing.example/hold", "/domains/failing.example/approve", "/settings/people", "/settings/invitations/end", "/domains/failing.example/check", "/quarantine/retry", "/quarantine/drop", "/reports/1/drop"]) {
    const answer = await context.request.post(base + path, { form: { word, reason: "x", name: "mallory" }, headers: { origin: base } });
    assert.equal(answer.status(), 403, path);
  }
  // Quarantined input may be somebody's mail.
  assert.equal((await context.request.get(base + "/quarantine/1")).status(), 403);
  await page.goto(base + "/quarantine");
  assert.equal(await page.locator("main form").count(), 0);
  await context.close();
}

// Forms of another site, old ones, and sign-ins that somebody else has set.
{
  const context = await browser.newContext({ storageState: operator });
  const page = await context.newPage();
  await page.goto(base + "/domains/failing.example");
  const word = await page.locator("header input[name=word]").inputValue();
  const post = (form, headers) => context.request.post(base + "/domains/failing.example/hold", { form: { reason: "x", ...form }, headers });
  assert.equal((await post({ word }, { origin: "https://evil.example" })).status(), 403);
  assert.equal((await post({ word }, { origin: "null" })).status(), 403);
  assert.equal((await post({ word: "x" }, { origin: base })).status(), 403);
  assert.equal((await post({}, { origin: base })).status(), 422);
  assert.equal((await context.request.get(base + "/", { headers: { host: "rebound.example" } })).status(), 421);
  for (const cookie of await context.cookies()) assert.ok(cookie.httpOnly && cookie.sameSite === "Lax", cookie.name);
  await context.close();
  const fixed = await browser.newContext();
  await fixed.addCookies([{ name: "sternpost", value: "chosen-by-mallory", url: base }]);
  const victim = await fixed.newPage();
  await victim.goto(base + "/sign-in");
  await victim.getByLabel("Name").fill("operator");
  await victim.getByLabel("Password").fill(PASSWORD);
  await victim.getByRole("button", { name: "Sign in" }).click();
  await victim.waitForURL(base + "/");
  assert.notEqual((await session(fixed)).value, "chosen-by-mallory");
  // What was signed out of is of no use any more.
  const cookie = await session(fixed);
  await victim.getByRole("button", { name: "Sign out" }).click();
  await victim.waitForURL(base + "/sign-in");
  await fixed.addCookies([cookie]);
  await victim.goto(base + "/");
  assert.equal(victim.url(), base + "/sign-in");
  // Guessing takes long: five tries by the browser's own count, and five by its address.
  for (let tries = 0; tries < 10; tries++) await fixed.request.post(base + "/sign-in", { form: { name: "operator", password: "guess" }, headers: { origin: base } });
  const blocked = await fixed.request.post(base + "/sign-in", { form: { name: "operator", password: PASSWORD }, headers: { origin: base } });
  assert.equal(blocked.status(), 429);
  assert.ok(Number(blocked.headers()["retry-after"]) > 0);
  // Links are used once.
  assert.equal((await fixed.request.get(operatorLink)).status(), 404);
  await fixed.close();
}

await browser.close();
console.log(`${looked} looks at pages, no fault`);
