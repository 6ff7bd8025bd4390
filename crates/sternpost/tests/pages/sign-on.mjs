// Signs in to the dashboard by a real OpenID Connect provider, in a real browser: a user with a group for changes, one with a
// group for reading, and one with neither. Prints what each met; exits with 1 on the first fault.
// sign-on.mjs ROOT BASE ISSUER CERTIFICATE KEY
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { pathToFileURL } from "node:url";
import assert from "node:assert/strict";

const [root, base, issuer, certificate, key] = process.argv.slice(2);
const require = createRequire(root + "/node_modules/");
const { chromium } = require("playwright-core");
const { default: Provider } = await import(pathToFileURL(root + "/node_modules/oidc-provider/lib/index.js"));

const groups = { olivia: ["mail-admins", "staff"], rita: ["support"], nobody: ["staff"] };
const provider = new Provider(issuer, {
  clients: [{
    client_id: "sternpost",
    client_secret: "not:a secret+of/ours",
    redirect_uris: [base + "/sign-in/oidc/return"],
  }],
  claims: { openid: ["sub"], profile: ["preferred_username"], groups: ["groups"] },
  scopes: ["openid", "profile", "groups"],
  features: { devInteractions: { enabled: true } },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: `${id}@corp.example`, groups: groups[id] }),
  }),
});
const refused = [];
for (const event of ["server_error", "grant.error", "authorization.error", "userinfo.error"]) {
  provider.on(event, (_, error) => refused.push(`${event}: ${error.message} ${error.error_description ?? ""}`));
}
const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, provider.callback());
await new Promise((ready) => server.listen(Number(new URL(issuer).port), "127.0.0.1", ready));

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });

/** A browser in which this user has signed in at the provider. */
async function signedIn(user) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  await page.goto(base + "/sign-in");
  await page.getByRole("link", { name: "Sign in with Example ID" }).click();
  await page.fill("input[name=login]", user);
  await page.fill("input[name=password]", "any");
  await page.click("button[type=submit]");
  await page.click("button[type=submit]");
  await page.waitForURL(base + "/**");
  return page;
}

const operator = await signedIn("olivia");
assert.deepEqual(refused, []);
await operator.goto(base + "/account");
const account = await operator.textContent("main");
assert.match(account, /signed in as olivia@corp\.example, with the role Operator/);
assert.match(account, /You sign in with Example ID/);
assert.equal(await operator.locator("input[type=password]").count(), 0);
await operator.goto(base + "/settings");
assert.notEqual(await operator.locator("form[action$='/settings/people']").count(), 0);
console.log("olivia: operator");

const reader = await signedIn("rita");
await reader.goto(base + "/settings");
assert.equal(await reader.locator("form[action$='/settings/people']").count(), 0);
console.log("rita: reader");

const nobody = await signedIn("nobody");
assert.match(await nobody.textContent("[role=alert]"), /none of the groups/);
await nobody.goto(base + "/account");
assert.match(nobody.url(), /\/sign-in$/);
console.log("nobody: no access");

assert.deepEqual(refused, []);
await browser.close();
server.close();
server.closeAllConnections();
