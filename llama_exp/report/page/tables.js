// Tables that sort by a click on a column, and a box that keeps the rows with a word in them.
"use strict";

function sortTable(table) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = make("button", { type: "button", title: "sort by this column" }, ...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].sort((one, other) => compare(one.cells[column], other.cells[column], up));
      body.append(...rows);
    });
  });
}

// Numbers by size, words by their letters; what has no value stands at the end either way.
function compare(one, other, up) {
  const [a, b] = [one, other].map((cell) => cell.dataset.value ?? cell.textContent.trim());
  if (a === "" || b === "") return (a === "") - (b === "");
  const isNumeric = a !== "" && b !== "" && Number.isFinite(Number(a)) && Number.isFinite(Number(b));
  const order = isNumeric ? Number(a) - Number(b) : a.localeCompare(b);
  return up ? order : -order;
}

function filterTable(table) {
  const input = make("input", { type: "search", placeholder: "only rows with …", "aria-label": "only rows with this text" });
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  table.parentElement.before(make("div", { class: "controls" }, input));
}

// A page from the disk may have no clipboard; then the command is selected, to be copied by hand.
function copy(button) {
  const done = () => { button.textContent = "copied"; };
  const select = () => getSelection().selectAllChildren(button.previousElementSibling);
  if (navigator.clipboard) navigator.clipboard.writeText(button.dataset.copy).then(done, select);
  else select();
}

// A cell of several runs leads to all of them.
function markRuns(numbers) {
  for (const row of document.querySelectorAll("tr.chosen")) row.classList.remove("chosen");
  for (const number of numbers) document.getElementById(`run-${number}`)?.classList.add("chosen");
}

function start() {
  const page = JSON.parse(document.getElementById("data").textContent);
  drawCurves(document.getElementById("curves"), page);
  drawSwept(document.getElementById("swept"), page);
  drawParallel(document.getElementById("parallel"), page);
  document.querySelectorAll("table").forEach(sortTable);
  document.querySelectorAll("table[data-filter]").forEach(filterTable);
  for (const link of document.querySelectorAll("a[data-runs]")) {
    link.addEventListener("click", () => markRuns(link.dataset.runs.split(" ")));
  }
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", () => copy(button));
  }
}

start();
