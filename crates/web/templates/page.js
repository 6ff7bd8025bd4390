// Adds a copy button after each text to paste. Without JavaScript, the text is selected by hand.
for (const text of document.querySelectorAll("pre.copy")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  button.textContent = "Copy";
  const about = text.getAttribute("aria-label");
  if (about) button.setAttribute("aria-label", "Copy: " + about);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Selected, copy it now";
    }
    setTimeout(() => (button.textContent = "Copy"), 3000);
  });
  text.after(button);
}
