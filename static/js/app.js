// Small comforts on every page: copy buttons, filters that apply at once, keyboard shortcuts.

for (const button of document.querySelectorAll("[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  const label = button.querySelector("span");
  button.hidden = false;
  button.addEventListener("click", async () => {
    label.textContent = (await copy(source)) ? "Copied" : "Press Ctrl+C";
    window.setTimeout(() => { label.textContent = "Copy"; }, 2500);
  });
}

// navigator.clipboard exists on https and on localhost only; elsewhere the text is selected for Ctrl+C.
async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    window.getSelection().selectAllChildren(source);
    return document.execCommand("copy");
  }
}

for (const form of document.querySelectorAll("form.list-tools")) {
  for (const select of form.querySelectorAll("[data-submit]")) {
    select.addEventListener("change", () => form.requestSubmit());
  }
  form.addEventListener("submit", () => {
    for (const field of form.elements) if (!field.value && field.name) field.disabled = true;
  });
}

// "/" goes to the search field, "n" follows the page's "new" link; neither while something is typed.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = document.querySelector(`[data-shortcut="${CSS.escape(event.key)}"]`);
  if (!target) return;
  event.preventDefault();
  if (target.matches("a, button")) target.click();
  else target.select();
});

// A form is sent once, however often its button is pressed.
for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
}
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});
