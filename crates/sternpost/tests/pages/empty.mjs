// The pages of an installation without domains, reports and history: each says what to do first.
// empty.mjs ROOT BASE SHOTS OPERATOR_LINK
import assert from "node:assert/strict";
import { base, browser, contextOf, look, looked, welcome } from "./look.mjs";

const operator = await welcome(process.argv[5]);
const PAGES = { "/": "sternpost init", "/alerts": "[guard]", "/reports": "sternpost reports import", "/senders": "No data yet", "/journal": "No decisions or changes yet", "/sending": "[answers]", "/settings": "Roles that are off" };
for (const [colorScheme, width] of [["light", 360], ["dark", 360], ["light", 1440], ["dark", 1440]]) {
  const context = await contextOf(colorScheme, width, operator);
  const page = await context.newPage();
  for (const [path, text] of Object.entries(PAGES)) {
    await look(page, path, `empty-${width}-${colorScheme}`);
    assert.ok((await page.locator("main").innerText()).includes(text), `${path}: ${text}`);
  }
  await context.close();
}
await browser.close();
console.log(`${looked()} looks at pages, no fault`);
