// What a script adds to pages that are complete without it: copy buttons, values of charts by pointer and arrow keys.
for (const text of document.querySelectorAll("pre.copy, code.copy")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copying";
  button.textContent = "Copy";
  const about = text.getAttribute("aria-label") || (text.tagName === "CODE" && text.textContent);
  if (about) button.setAttribute("aria-label", "Copy: " + about);
  const value = text.textContent;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(value);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Selected, copy it now";
    }
    setTimeout(() => (button.textContent = "Copy"), 3000);
  });
  text.after(button);
  if (text.tagName === "PRE") {
    const box = document.createElement("div");
    box.className = "copybox";
    text.before(box);
    box.append(text, button);
  }
}

for (const figure of document.querySelectorAll("figure.chart")) {
  const plots = figure.querySelector(".plots");
  const readout = figure.querySelector(".readout");
  // The page to print has no readout.
  if (!plots || !readout) continue;
  const svgs = [...plots.querySelectorAll("svg.plot")].map((svg) => [...svg.querySelectorAll(".hits rect")]);
  const values = svgs[0].map((rect) => rect.querySelector("title").textContent);
  const hint = readout.textContent.replace("or open", "use the arrow keys, or open");
  readout.textContent = hint;
  // The values are shown below the chart, so tooltips would be in the way.
  for (const rects of svgs) for (const rect of rects) rect.querySelector("title").remove();
  let at = values.length - 1;
  const show = (index) => {
    at = Math.max(0, Math.min(values.length - 1, index));
    for (const rects of svgs) rects.forEach((rect, place) => rect.classList.toggle("on", place === at));
    readout.textContent = values[at];
    plots.setAttribute("aria-valuenow", at);
    plots.setAttribute("aria-valuetext", values[at]);
  };
  const hide = () => {
    for (const rects of svgs) for (const rect of rects) rect.classList.remove("on");
    readout.textContent = hint;
  };
  for (const [name, value] of Object.entries({ role: "slider", tabindex: 0, "aria-label": "Day of the chart", "aria-valuemin": 0, "aria-valuemax": at, "aria-valuenow": at, "aria-valuetext": values[at] })) plots.setAttribute(name, value);
  for (const svg of plots.querySelectorAll("svg")) svg.setAttribute("aria-hidden", "true");
  for (const rects of svgs) rects.forEach((rect, place) => rect.addEventListener("pointerenter", () => show(place)));
  plots.addEventListener("pointerleave", hide);
  plots.addEventListener("focus", () => show(at));
  plots.addEventListener("blur", hide);
  plots.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: values.length - 1, PageUp: at + 7, PageDown: at - 7 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    show(moves[event.key]);
  });
}
