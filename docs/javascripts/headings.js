// On a phone a row of names is read from top to bottom, where no headings stand: there each cell has its own.
for (const table of document.querySelectorAll(".md-typeset table:not([class])")) {
  const headings = Array.from(table.tHead?.rows[0]?.cells ?? [], (each) => each.textContent.trim());
  for (const body of table.tBodies) {
    for (const row of body.rows) {
      for (const cell of Array.from(row.cells).slice(1)) {
        const heading = headings[cell.cellIndex];
        if (heading) cell.dataset.heading = heading;
      }
    }
  }
}
