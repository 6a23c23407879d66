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
  // Numbers before words, and what is missing last.
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b
      : typeof a !== typeof b ? (typeof a === "number" ? -1 : 1)
        : a.localeCompare(b);
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      const [numbers, words] = [rows.filter(([k]) => typeof k === "number"), rows.filter(([k]) => typeof k !== "number")];
      const sign = descending ? -1 : 1;
      for (const part of [numbers, words]) {
        part.sort(([a], [b]) => sign * compare(a, b));
        body.append(...part.map(([, row]) => row));
      }
    });
  });
}
