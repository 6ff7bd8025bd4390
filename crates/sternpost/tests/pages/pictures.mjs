// The pictures of docs/, which docs/pictures makes.
// pictures.mjs ROOT BASE FOLDER OPERATOR_LINK
import { base, browser, welcome } from "./look.mjs";

const [folder, link] = process.argv.slice(4);
const PICTURES = [
  ["/", "dashboard.png", 900],
  ["/domains/harbour.test?days=30", "dashboard-domain.png", 1330],
  ["/domains/harbour.test/report", "dashboard-report.png", 1330],
];
const storageState = await welcome(link);
const context = await browser.newContext({ storageState, colorScheme: "light", viewport: { width: 1120, height: 900 } });
const page = await context.newPage();
for (const [path, name, most] of PICTURES) {
  await page.goto(base + path);
  const height = Math.min(most, await page.evaluate(() => document.documentElement.scrollHeight));
  await page.screenshot({ path: `${folder}/${name}`, fullPage: true, clip: { x: 0, y: 0, width: 1120, height } });
}
await browser.close();
console.log(`${PICTURES.length} pictures`);
