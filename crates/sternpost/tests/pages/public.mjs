// The public check in a real browser, with a script and without one, at domains whose hosts do not answer: the page of the running
// check shows the first answers and leads to the result, from there to the history of the domain and its badge. The third domain
// is only looked at while its check runs.
// public.mjs ROOT BASE SHOTS DOMAIN DOMAIN DOMAIN
import assert from "node:assert/strict";
import { base, browser, inspect, looked } from "./look.mjs";

const [first, second, third] = process.argv.slice(5);

for (const [domain, colorScheme, width, javaScriptEnabled] of [[first, "light", 360, true], [second, "dark", 1280, false]]) {
  const context = await browser.newContext({ colorScheme, viewport: { width, height: 900 }, javaScriptEnabled });
  const looking = await browser.newContext({ colorScheme, viewport: { width, height: 900 }, bypassCSP: true });
  // Without its script, the page of a check that runs stays for two seconds.
  await looking.route("**/check.js", (route) => route.fulfill({ contentType: "text/javascript", body: "" }));
  const other = await looking.newPage();
  if (javaScriptEnabled) {
    await other.goto(`${base}/check?domain=${third}`);
    assert.equal(await other.title(), `Checking ${third}`);
    await inspect(other, `${width}-${colorScheme}`, "public-running");
  }
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && !/40[0-9]/.test(message.text()) && errors.push(message.text()));
  page.on("request", (request) => assert.ok(request.url().startsWith(base), "a request to elsewhere: " + request.url()));
  await page.goto(base + "/check");
  await page.getByLabel("Domain").fill(domain);
  await page.getByRole("button", { name: "Check" }).click();
  await page.waitForURL(/\/check\/(running\/)?[^/]+$/);
  const seen = await page.title();
  await page.waitForFunction(() => document.title.startsWith("Mail transport security of"), null, { timeout: 120_000 });
  assert.equal(seen, `Checking ${domain}`);
  assert.match(page.url(), /\/check\/[^/]+$/, "the link of the result");
  const result = page.url();
  await page.getByRole("link", { name: "History and badge" }).click();
  assert.equal(await page.getByRole("img").evaluate((image) => image.naturalHeight), 20);
  assert.equal(await page.getByRole("row").count(), 2, "the same result is one row");
  const history = page.url();
  assert.deepEqual(errors, []);
  await context.close();
  for (const [url, called] of [[base + "/check", "check"], [result, "result"], [history, "history"]]) {
    await other.goto(url);
    await inspect(other, `${width}-${colorScheme}`, `public-${called}`);
  }
  await looking.close();
}
await browser.close();
console.log(`${looked()} looks at pages, no fault`);
