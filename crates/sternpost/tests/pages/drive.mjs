// Drives a real browser over every page: three widths, two themes, with the accessibility rules of
// axe-core, by keyboard alone, and as an attacker. Prints what it did; exits with 1 on the first fault.
// drive.mjs ROOT BASE SHOTS OPERATOR_LINK READER_LINK UNUSED_LINK
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { writeFileSync } from "node:fs";
import { base, browser, contextOf, inspect, look, looked, shots, welcome, PASSWORD } from "./look.mjs";

const [operatorLink, readerLink, unusedLink] = process.argv.slice(5);
const PAGES = ["/", "/?tag=shop", "/t/main/senders", "/?q=nothing-like-it", "/?state=action&sort=failed&dir=desc", "/alerts", "/domains/failing.example", "/domains/ready.example",
  "/domains/new.example", "/domains/silent.example", "/domains/enforced.example", "/domains/enforced.example?days=365", "/domains/xn--mller-kva.example",
  "/domains/enforced.example/report", "/report", "/reports", "/reports?domain=failing.example&failed=on", "/reports?submitter=sender", "/reports/1", "/dmarc",
  "/dmarc?domain=failing.example", "/quarantine", "/senders", "/journal", "/journal?domain=ready.example", "/sending", "/settings", "/account", "/domains/failing.example/check", "/check", "/check?domain=no+domain",
  "/check/domain/checked.example", "/check/domain/unknown.example", "/check/running/none", "/nothing-here"];

/** Leaves the script out of all pages. */
const withoutScript = (context) => context.route("**/page.js*", (route) => route.fulfill({ contentType: "text/javascript", body: "" }));

/** The cookie of the session. */
const session = async (context) => (await context.cookies()).find((cookie) => cookie.name === "sternpost");

/** The code of a second factor now (RFC 6238). */
function code(key) {
  const bits = [...key.replace(/=+$/, "")].map((c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0")).join("");
  const secret = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const mac = createHmac("sha1", secret).update(step).digest();
  return String((mac.readUInt32BE(mac[19] & 15) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

/** What was just done is said on the page that follows. */
const said = (page, hasText) => page.getByRole("status").filter({ hasText }).waitFor();

const operator = await welcome(operatorLink);
const reader = await welcome(readerLink);

for (const colorScheme of ["light", "dark"]) {
  for (const width of [360, 820, 1440]) {
    const context = await contextOf(colorScheme, width, operator);
    const page = await context.newPage();
    for (const path of PAGES) await look(page, path, `${width}-${colorScheme}`);
    await context.close();
    const stranger = await contextOf(colorScheme, width);
    await look(await stranger.newPage(), "/sign-in", `${width}-${colorScheme}`);
    await look(await stranger.newPage(), new URL(unusedLink).pathname, `${width}-${colorScheme}`, "welcome");
    await stranger.close();
  }
}

// The same pages without the script, and as somebody who may only look. The script is left out of the pages, since the
// accessibility rules need scripts themselves.
for (const [name, user] of [["no-script", operator], ["viewer", reader]]) {
  const context = await contextOf("light", 820, user);
  if (name === "no-script") await withoutScript(context);
  const page = await context.newPage();
  for (const path of PAGES) await look(page, path, name);
  await context.close();
}

// Pages that follow a form or a refusal, each on a phone in the dark, on a desk, and without the script.
for (const [colorScheme, width, name] of [["dark", 360, "360-dark"], ["light", 1440, "1440-light"], ["light", 820, "no-script"]]) {
  const newContext = async (user) => {
    const context = await contextOf(colorScheme, width, user);
    if (name === "no-script") await withoutScript(context);
    return context;
  };
  const context = await newContext(operator);
  const page = await context.newPage();
  await page.goto(base + "/settings");
  await page.getByLabel("Name of the user to invite").fill(`zoe${width}`);
  await page.locator("select[name=role]").selectOption("reader");
  await page.getByRole("button", { name: "Create invitation link" }).click();
  assert.match(await page.locator("pre.copy").first().innerText(), /\/welcome\//);
  await inspect(page, name, "invited");
  const invited = await page.locator("pre.copy").first().innerText();
  // A second factor: proposed, and the recovery codes are shown once it is confirmed.
  const zoe = await newContext(await welcome(invited.trim()));
  const own = await zoe.newPage();
  await own.goto(base + "/account");
  await own.getByLabel("Current password, to set up a second factor").fill(PASSWORD);
  await own.getByRole("button", { name: "Set up a second factor" }).click();
  const key = (await own.locator("pre.copy").first().innerText()).replace(/\s/g, "");
  await inspect(own, name, "second-factor");
  await own.getByLabel("Code from the app").fill(code(key));
  await own.locator("form[action$='/second-factor/confirm'] input[name=current]").fill(PASSWORD);
  await own.getByRole("button", { name: "Confirm" }).click();
  assert.match(await own.locator("main").innerText(), /recovery code/i);
  await inspect(own, name, "recovery-codes");
  await own.getByRole("button", { name: "Sign out" }).click();
  await own.getByLabel("Name").fill(`zoe${width}`);
  await own.getByLabel("Password").fill(PASSWORD);
  await own.getByRole("button", { name: "Sign in" }).click();
  assert.match(await own.locator("main").innerText(), /code/i);
  await inspect(own, name, "sign-in-code");
  await zoe.close();
  // Refusals are pages, too: not for viewers, and a conflict.
  const refused = await newContext(reader);
  const view = await refused.newPage();
  await view.goto(base + "/quarantine/1");
  await inspect(view, name, "refused-403");
  await refused.close();
  await page.goto(base + "/settings");
  await page.evaluate(() => {
    const form = document.querySelector("form[action='/settings/people/remove']");
    form.querySelector("[name=name]").value = "operator";
    form.submit();
  });
  await page.waitForURL(/people\/remove/);
  await inspect(page, name, "refused-409");
  await context.close();
  // Too many attempts for a name: the page says how long to wait.
  const guesser = await newContext();
  const guess = await guesser.newPage();
  for (let tries = 0; tries < 20 && !/Too many failed attempts/.test(await guess.innerText("body")); tries++) {
    await guess.goto(base + "/sign-in");
    await guess.getByLabel("Name").fill(`stranger-${width}`);
    await guess.getByLabel("Password").fill("guess");
    await guess.getByRole("button", { name: "Sign in" }).click();
  }
  assert.match(await guess.getByRole("alert").innerText(), /^Too many failed attempts\. Try again in (\d+ (seconds|minutes)|a second)\.$/);
  await inspect(guess, name, "refused-429");
  await guesser.close();
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
    assert.equal(await page.locator("[onclick],[onerror],img:not([src$='/badge.svg'])").count(), 0);
  }
  await page.goto(base + "/domains/ready.example");
  assert.ok((await page.locator("main").innerText()).includes("ready.example"));
  const paste = page.locator("pre.copy").last();
  await paste.locator("+ button").click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await paste.innerText());
  // The chart tells its values to the pointer and to arrow keys.
  await page.goto(base + "/domains/enforced.example");
  const plots = page.getByRole("slider", { name: "Day of the chart" });
  const readout = page.locator(".readout");
  // The pointer may be over the chart since the last click.
  await page.mouse.move(1, 1);
  await plots.focus();
  const last = await readout.innerText();
  assert.match(last, /^\d{4}-\d{2}-\d{2}: /);
  await page.keyboard.press("ArrowLeft");
  const before = await readout.innerText();
  assert.notEqual(before, last);
  assert.equal(await plots.getAttribute("aria-valuetext"), before);
  await page.locator("svg.wide .hits rect").nth(-5).hover();
  assert.match(await readout.innerText(), /succeeded, \d+ failed/);
  await page.getByRole("link", { name: "7 days" }).click();
  assert.equal(await page.locator("svg.wide .hits rect").count(), 7);
  await context.close();
}

// Search, filters, sorting and pages are links and forms.
{
  const context = await browser.newContext({ storageState: operator, javaScriptEnabled: false });
  const page = await context.newPage();
  // Tags are in a second line.
  const names = async () => (await page.locator("section:has(#domains) tbody th").allInnerTexts()).map((text) => text.split("\n")[0]);
  await page.goto(base + "/");
  assert.match(await page.getByRole("heading", { level: 1 }).innerText(), /^Mail is at risk for 5 of \d+ domains; \d more need action/);
  const group = page.locator(".group", { hasText: "mx.shared.example failed TLS authentication" });
  assert.equal(await group.count(), 1);
  await group.getByRole("link", { name: "See the 5 domains" }).click();
  assert.deepEqual(await names(), ["five.example", "four.example", "one.example", "three.example", "two.example"]);
  assert.match(await page.locator(".filter").innerText(), /^5 of \d+ domains: cause “.*mx.shared.example/);
  await page.getByRole("link", { name: "Show all domains" }).click();
  await page.getByRole("link", { name: /^Mail at risk/ }).click();
  assert.deepEqual(await names(), ["five.example", "four.example", "one.example", "three.example", "two.example"]);
  await page.goto(base + "/");
  await page.getByRole("link", { name: "shop 2" }).click();
  assert.deepEqual(await names(), ["one.example", "enforced.example"]);
  await page.getByRole("link", { name: "Show all domains" }).click();
  await page.getByRole("link", { name: "Domain", exact: true }).click();
  assert.equal(await page.locator("th[aria-sort=ascending]").innerText(), "Domain");
  const sorted = await names();
  assert.deepEqual(sorted.slice(0, 2), ["d00.example", "d01.example"]);
  await page.getByRole("link", { name: "Next", exact: true }).click();
  assert.match(await page.locator(".pager").innerText(), /Page 2 of 2/);
  assert.ok(!(await names()).includes(sorted[0]));
  await page.getByLabel("Domain contains").fill("MÜLLER");
  await page.keyboard.press("Enter");
  await page.waitForURL(/q=M/);
  assert.deepEqual(await names(), ["müller.example"]);
  assert.equal(await page.locator("tbody bdi").first().getAttribute("title"), "xn--mller-kva.example");
  await page.goto(base + "/?q=zzz");
  assert.match(await page.locator("main").innerText(), /No domain matches/);
  await page.goto(base + "/reports?submitter=big");
  await page.getByRole("link", { name: "big.sender.example" }).click();
  assert.match(await page.locator(".filter").innerText(), /Only reports from big.sender.example/);
  // A domain without data claims nothing.
  await page.goto(base + "/domains/silent.example");
  assert.equal(await page.locator(".parts .badge.fine").count(), 0);
  assert.ok((await page.locator("main").innerText()).includes("No data yet"));
  // The certificate of an MX host is known from before the start of the program, with the time of the look.
  await page.goto(base + "/domains/enforced.example");
  assert.match(await page.locator("td[data-name=Certificate]").first().innerText(), /(59|60) days left\s+Example Trust \(R11\)\s+seen \d{4}-\d{2}-\d{2} \d\d:\d\d UTC/);
  // What is wrong, what to do, since when: on the first screen.
  await page.goto(base + "/domains/enforced.example/report");
  assert.match(await page.locator(".figures").innerText(), /Protected since\s+\d{4}-\d{2}-\d{2}/);
  // An average does not hide six days of failures.
  assert.match(await page.locator("main").innerText(), /Failed on the worst day\s+1\.\d\d %/);
  assert.match(await page.locator(".incidents").innerText(), /certificate-expired at mx1.enforced.example/);
  await context.close();
}

// The pages to print are one sheet of A4 each.
{
  const context = await browser.newContext({ storageState: operator });
  const page = await context.newPage();
  for (const path of ["/domains/enforced.example/report", "/domains/enforced.example/report?days=90", "/report"]) {
    await page.goto(base + path);
    const pdf = await page.pdf({ preferCSSPageSize: true, printBackground: true });
    writeFileSync(`${shots}/print${path.replace(/[^a-z0-9.]+/g, "_")}.pdf`, pdf);
    assert.equal(pdf.toString("latin1").match(/\/Type\s*\/Page\b/g).length, 1, path);
  }
  await context.close();
}

// Tables are for spreadsheets: headings in words, dates as dates.
{
  const context = await browser.newContext({ storageState: operator });
  const csv = async (path) => (await (await context.request.get(base + path)).text()).split("\r\n");
  assert.match((await csv("/domains/enforced.example?format=csv"))[0], /^Day \(UTC\),Successful sessions,Failed sessions,Failed \(%\),/);
  assert.match((await csv("/domains/enforced.example?format=csv"))[1], /^\d{4}-\d\d-\d\d,\d+,\d+,/);
  assert.match((await csv("/?format=csv&state=enforced"))[0], /^Domain,State,Mode,/);
  assert.match((await csv("/reports?format=csv"))[1], /,[a-z0-9-]+\.example,,/);
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
  await page.getByText("Enforce although the evidence is not sufficient").click();
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
console.log(`${looked()} looks at pages, no fault`);
