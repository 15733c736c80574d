"use strict";
// Sorting and filtering of tables. Without this script the page reads the same; only these are not there.

const collator = new Intl.Collator("en", { numeric: true });

/** Give what a cell is sorted by: a number, a text, or null where it is undefined. */
function orderOf(cell, numeric) {
  if (cell.dataset.order !== undefined) return Number(cell.dataset.order);
  const shown = cell.querySelector("[data-field]") || cell;
  const text = shown.textContent.trim();
  if (text === "\u2013" || text === "") return null;
  if (!numeric) return text;
  const value = Number.parseFloat(text);
  return Number.isNaN(value) ? null : value;
}

/** Sort a table's rows by a column; rows without a value stay last, and equal ones in their order. */
function sortBy(table, header, ascending) {
  const place = header.cellIndex;
  const numeric = header.classList.contains("num");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => ({ row, order: orderOf(row.cells[place], numeric) }));
  rows.sort((a, b) => {
    if (a.order === null || b.order === null) return (a.order === null) - (b.order === null);
    const difference = numeric ? (a.order < b.order ? -1 : a.order > b.order ? 1 : 0)
                               : collator.compare(a.order, b.order);
    return ascending ? difference : -difference;
  });
  body.append(...rows.map((each) => each.row));
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
}

function makeSortable(table) {
  if (table.tBodies[0].rows.length < 2) return;
  for (const header of table.tHead.rows[table.tHead.rows.length - 1].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortBy(table, header, header.getAttribute("aria-sort") !== "ascending"));
  }
}

/** Put a field for words and lists of names above a table, which show the rows that have them all. */
function makeFilterable(table) {
  const rows = Array.from(table.tBodies[0].rows, (row) => ({ row, text: row.textContent.toLowerCase() }));
  const controls = document.createElement("form");
  controls.className = "filters";
  controls.addEventListener("submit", (event) => event.preventDefault());
  const count = document.createElement("output");
  const words = document.createElement("input");
  words.type = "search";
  addControl(controls, "Filter", words);
  const lists = [];
  for (const header of table.querySelectorAll("th[data-choice]")) {
    const place = header.cellIndex;
    const names = [...new Set(rows.map((each) => each.row.cells[place].textContent.trim()))];
    if (names.length < 2) continue;
    const list = document.createElement("select");
    list.append(new Option("all", ""), ...names.sort(collator.compare).map((name) => new Option(name, "=" + name)));
    addControl(controls, header.textContent.trim(), list);
    lists.push({ list, place });
  }
  const update = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, text } of rows) {
      const fits = wanted.every((word) => text.includes(word)) &&
        lists.every(({ list, place }) => !list.value || "=" + row.cells[place].textContent.trim() === list.value);
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown + " of " + rows.length + " rows";
  };
  controls.append(count);
  for (const kind of ["input", "change"]) controls.addEventListener(kind, update);
  table.parentElement.before(controls);
  update();
}

function addControl(form, name, control) {
  const label = document.createElement("label");
  label.append(name, control);
  form.append(label);
}

/** Open what a link leads to, if it is folded. */
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}

for (const table of document.querySelectorAll("table[data-filtered]")) makeFilterable(table);
for (const table of document.querySelectorAll("table")) makeSortable(table);
addEventListener("hashchange", openTarget);
openTarget();

// On paper nothing is folded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of folded) each.open = false;
});
