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

// Sorting and filtering open the list anew: who does it by keyboard finds the focus where it was.
const FOCUS = "ytserver-list-focus";
let isByKeyboard = false;
document.addEventListener("keydown", () => { isByKeyboard = true; }, true);
document.addEventListener("pointerdown", () => { isByKeyboard = false; }, true);
function keepFocus(selector, place) {
  if (isByKeyboard) window.sessionStorage.setItem(FOCUS, JSON.stringify({ path: window.location.pathname, selector, place }));
}
for (const head of document.querySelectorAll(".list thead")) {
  head.addEventListener("click", (event) => {
    const links = [...document.querySelectorAll(".list thead a")];
    const place = links.indexOf(event.target.closest("a"));
    if (place >= 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey) keepFocus(".list thead a", place);
  });
}
const focusKept = JSON.parse(window.sessionStorage.getItem(FOCUS) ?? "null");
window.sessionStorage.removeItem(FOCUS);
if (focusKept?.path === window.location.pathname) document.querySelectorAll(focusKept.selector)[focusKept.place]?.focus();

for (const form of document.querySelectorAll("form.list-tools")) {
  for (const select of form.querySelectorAll("[data-submit]")) {
    // With the arrow keys each step is a change, within the key's own event: then Enter, or the button, applies it.
    // What is chosen in the opened list comes later, also when a key opened it, and applies at once.
    let isStepping = false;
    const step = () => {
      isStepping = true;
      setTimeout(() => { isStepping = false; });
    };
    select.addEventListener("keypress", (event) => { if (event.key !== "Enter") step(); });
    select.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return step();
      if (select.selectedOptions[0]?.defaultSelected) return;
      event.preventDefault();
      form.requestSubmit();
    });
    select.addEventListener("change", () => { if (!isStepping) form.requestSubmit(); });
  }
  form.addEventListener("submit", () => {
    const filter = form.querySelector("select:focus");
    if (filter) keepFocus(`.list-tools select[name="${CSS.escape(filter.name)}"]`, 0);
    for (const field of form.elements) if (!field.value && field.name) field.disabled = true;
  });
}

// A form that was refused begins at the first field with a problem.
document.querySelector("main [aria-invalid=true]")?.focus();

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

// A link that acts as a button answers to the space bar too.
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || !event.target.matches("a[role=button]")) return;
  event.preventDefault();
  event.target.click();
});

// A form is sent once, however often its button is pressed.
for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
    if (form.dataset.busy) showBusy(form);
  });
}
function showBusy(form) {
  const said = form.querySelector("[data-busy-note]") ?? form.querySelector(".buttons").appendChild(document.createElement("span"));
  said.dataset.busyNote = "";
  said.className = "note busy";
  said.setAttribute("role", "status");
  said.textContent = form.dataset.busy;
}
window.addEventListener("pageshow", () => {
  for (const note of document.querySelectorAll("[data-busy-note]")) note.remove();
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// What "Go back" ticked is ticked once, not with each look at the list from now on.
const seen = new URL(window.location.href);
if (seen.searchParams.has("ticked")) {
  seen.searchParams.delete("ticked");
  window.history.replaceState(null, "", seen);
}

// Lists: ticking rows, and lists that read themselves anew while somebody looks.
for (const list of document.querySelectorAll(".list")) {
  const update = () => {
    const ticks = [...list.querySelectorAll("tbody .tick input")];
    const all = list.querySelector("[data-bulk-all]");
    const count = list.querySelector("[data-bulk-count]");
    if (!all || !count) return;
    const everything = list.querySelector("[data-bulk-everything]");
    const ticked = ticks.filter((tick) => tick.checked).length;
    const isEverything = Boolean(everything?.control.checked);
    all.hidden = false;
    all.checked = ticked > 0 && ticked === ticks.length;
    all.indeterminate = ticked > 0 && ticked < ticks.length;
    if (everything) everything.hidden = ticked < ticks.length;
    count.textContent = isEverything ? "All chosen:" : ticked ? `${ticked} chosen:` : "Tick rows to";
    for (const button of list.querySelectorAll(".bulk-tools button")) button.disabled = !ticked;
  };
  let lastTick = null; // with the shift key a click ticks, or unticks, the rows from the last click to here
  list.addEventListener("click", (event) => {
    if (!event.target.matches("tbody .tick input")) return;
    const ticks = [...list.querySelectorAll("tbody .tick input")];
    const ends = [ticks.indexOf(lastTick), ticks.indexOf(event.target)].sort((a, b) => a - b);
    if (event.shiftKey && ends[0] >= 0) {
      for (const tick of ticks.slice(ends[0], ends[1] + 1)) tick.checked = event.target.checked;
    }
    lastTick = event.target;
  });
  list.addEventListener("keydown", (event) => { // else Enter would be a press of the first button below
    if (event.key === "Enter" && event.target.matches(".bulk input[type=checkbox]")) event.preventDefault();
  });
  list.addEventListener("change", (event) => {
    const everything = list.querySelector("[data-bulk-everything]")?.control;
    if (event.target.matches("[data-bulk-all]")) {
      for (const tick of list.querySelectorAll("tbody .tick input")) tick.checked = event.target.checked;
    }
    // A row that is not ticked is not chosen, so then it is not everything.
    if (everything && event.target.matches(".tick input") && !event.target.checked) everything.checked = false;
    update();
  });
  window.addEventListener("pageshow", update);
  update();
  if (list.dataset.liveList) window.setInterval(() => refreshList(list, update), Number(list.dataset.liveList) * 1000);
}

async function refreshList(list, update) {
  if (document.hidden) return;
  try {
    const answer = await fetch(window.location.href, {
      headers: { "X-Requested-With": "fetch" },
      signal: AbortSignal.timeout(10_000),
    });
    if (answer.status === 401) window.location.reload();
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector(`.list[aria-label="${CSS.escape(list.getAttribute("aria-label"))}"]`);
    if (fresh) bringUpToDate(list, fresh);
    update();
  } catch {
    // the server is away for a moment: the next try is soon
  }
}

// Nothing moves under somebody's hands: while a row is ticked, or something in the rows has the focus, the rows that
// are there are brought up to date in place, and others come and go afterwards. Search and filters are left alone
// while they have the focus.
function bringUpToDate(list, fresh) {
  const rows = list.querySelector("table");
  const inHand = rows && (list.querySelector(".bulk, table").contains(document.activeElement) || rows.querySelector("tbody .tick :checked"));
  const tools = list.querySelector(".list-tools");
  const freshTools = fresh.querySelector(".list-tools");
  if (inHand) {
    updateRows(rows, fresh);
  } else if (tools?.contains(document.activeElement) && freshTools) {
    while (tools.nextSibling) tools.nextSibling.remove();
    while (freshTools.nextSibling) list.append(freshTools.nextSibling);
  } else {
    list.replaceChildren(...fresh.childNodes);
    return;
  }
  const count = tools?.querySelector(".count");
  const freshCount = freshTools?.querySelector(".count");
  if (count && freshCount && !count.isEqualNode(freshCount)) count.textContent = freshCount.textContent;
}

function updateRows(table, fresh) {
  const freshRows = new Map([...fresh.querySelectorAll("tr[data-row]")].map((row) => [row.dataset.row, row]));
  for (const row of table.querySelectorAll("tr[data-row]")) {
    const now = freshRows.get(row.dataset.row);
    row.classList.toggle("gone", !now);
    row.title = now ? "" : "No longer in this list";
    if (!now) continue;
    for (const [place, cell] of [...row.cells].entries()) {
      const cellNow = now.cells[place];
      if (cell.matches(".tick") || cell.isEqualNode(cellNow)) continue;
      const focused = cell.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      cell.replaceChildren(...cellNow.childNodes);
      if (focused === null) continue;
      const same = [...cell.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused);
      (same ?? row.querySelector(".tick input, a"))?.focus({ preventScroll: true });
    }
  }
}
