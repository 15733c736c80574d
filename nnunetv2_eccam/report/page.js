"use strict";
// Sorting of tables and filtering of the list of cases. Without this script the page reads the same.
const collator = new Intl.Collator("en", { numeric: true });

/** Give what a cell is sorted by: a number, a text, or null where it is undefined. */
function orderOf(cell, numeric) {
  const text = cell.textContent.trim();
  if (text === "\u2013") return null;
  const value = Number.parseFloat(text);
  return numeric ? (Number.isNaN(value) ? null : value) : text;
}

/** Sort a table's rows by a column; rows without a value stay last, and equal ones in their order. */
function sortBy(table, header) {
  const up = header.getAttribute("aria-sort") !== "ascending", numeric = header.classList.contains("num");
  const rows = Array.from(table.tBodies[0].rows, (row) => ({ row, order: orderOf(row.cells[header.cellIndex], numeric) }));
  rows.sort((a, b) => {
    if (a.order === null || b.order === null) return (a.order === null) - (b.order === null);
    const difference = numeric ? a.order - b.order : collator.compare(a.order, b.order);
    return up ? difference : -difference;
  });
  table.tBodies[0].append(...rows.map((each) => each.row));
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length < 2) continue;
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortBy(table, header));
  }
}

const form = document.querySelector(".filters"), listed = document.querySelector("table[data-filtered]");
if (form && listed) {
  const rows = Array.from(listed.tBodies[0].rows, (row) => ({ row, text: row.textContent.toLowerCase() }));
  const update = () => {
    const words = form.querySelector("input").value.toLowerCase().split(/\s+/);
    for (const { row, text } of rows) row.hidden = !words.every((word) => text.includes(word));
    form.querySelector("output").textContent = `${rows.filter(({ row }) => !row.hidden).length} of ${rows.length} rows`;
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", update);
  update();
}

/** Open what a link leads to, if it is folded; on paper nothing is. */
addEventListener("hashchange", () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
