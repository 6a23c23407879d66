// Tables are sorted by their headings; without this script they stand in their own order.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.textContent.trim();
    const value = cell.dataset.value ?? (text !== "" && !isNaN(text) ? text : null);
    return value === null ? text : Number(value);
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const sign = descending ? -1 : 1;
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      const numbers = rows.filter(([k]) => typeof k === "number").sort(([a], [b]) => sign * (a - b));
      const words = rows.filter(([k]) => typeof k === "string").sort(([a], [b]) => sign * a.localeCompare(b));
      // What has no number comes last, whichever way the numbers are sorted.
      body.append(...[...numbers, ...words].map(([, row]) => row));
    });
  });
}
