// Sorting and filtering of the verdict table. Without it the page shows everything, in order.
(() => {
  const table = document.getElementById("verdict-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = (cell.dataset.sort ?? (cell.querySelector(".value") ?? cell).textContent).trim();
    const number = Number.parseFloat(text.replaceAll(",", ""));
    return Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b
    : typeof a === "number" ? -1
    : typeof b === "number" ? 1
    : a.localeCompare(b);

  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = [...rows].sort((a, b) => compare(value(a, column), value(b, column)));
      body.append(...(down ? sorted.reverse() : sorted));
    });
  });

  const search = document.getElementById("verdict-search");
  const verdict = document.getElementById("verdict-filter");
  const paper = document.getElementById("paper-filter");
  const whose = document.getElementById("whose-filter");
  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const row of rows) {
      row.hidden =
        (verdict.value !== "" && row.dataset.verdict !== verdict.value) ||
        (paper.value !== "" && row.dataset.paper !== paper.value) ||
        (whose.value !== "" && row.dataset.whose !== whose.value) ||
        !row.textContent.toLowerCase().includes(wanted);
    }
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById("verdict-count").textContent = `${shown} of ${rows.length} claims`;
  };
  for (const control of [search, verdict, paper, whose]) control.addEventListener("input", filter);
  document.getElementById("verdict-controls").hidden = false;
  filter();
})();
