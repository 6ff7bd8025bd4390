// Puts a button that copies beside each text to paste. Without this the text is selected by hand.
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
      button.textContent = "Selected: copy it";
    }
    setTimeout(() => (button.textContent = "Copy"), 3000);
  });
  text.after(button);
}
