// Continues the page of a running check: asks for the page again and replaces what changed, until the result is there. Without
// a script, the page refreshes itself.
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function follow() {
  for (;;) {
    let response, text;
    try {
      response = await fetch(location.href);
      text = await response.text();
    } catch {
      await pause(3000);
      continue;
    }
    const page = new DOMParser().parseFromString(text, "text/html");
    const main = page.getElementById("main");
    document.title = page.title;
    if (main && main.hasAttribute("data-running")) {
      // The server answers after a second at most, or when the check has ended.
      const now = document.getElementById("main");
      now.querySelector("[role=status]").textContent = main.querySelector("[role=status]").textContent;
      const rows = main.querySelector("table tbody");
      const shown = now.querySelector("table tbody");
      if (rows && shown) {
        for (const row of [...rows.children].slice(shown.children.length)) shown.append(row);
      } else if (rows) {
        now.replaceWith(main);
      }
      await pause(200);
      continue;
    }
    if (response.redirected) {
      history.replaceState(null, "", response.url);
    }
    document.body.replaceWith(page.body);
    return;
  }
}

follow();
