
"use strict";
// Every head of a column becomes a button: first by what is most, or by the alphabet; then the other way; then as it was.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const asItWas = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const keyOf = (row, column) => row.cells[column].dataset.key;
  const isNumber = (column) => asItWas.every((row) => [undefined, ""].includes(keyOf(row, column)) || isFinite(keyOf(row, column)));

  const sort = (column, order) => {
    const byNumber = isNumber(column);
    const sign = order === "ascending" ? 1 : -1;
    const compare = (left, right) => {
      const [a, b] = [keyOf(left, column), keyOf(right, column)];
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      return sign * (byNumber ? a - b : a.localeCompare(b, "en", { numeric: true }));
    };
    body.append(...(order ? asItWas.slice().sort(compare) : asItWas));
    heads.forEach((head, number) => {
      if (number === column && order) head.setAttribute("aria-sort", order);
      else head.removeAttribute("aria-sort");
    });
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const orders = isNumber(column) ? ["descending", "ascending", null] : ["ascending", "descending", null];
      const next = orders.indexOf(head.getAttribute("aria-sort")) + 1;
      sort(column, orders[next % orders.length]);
    });
  });
}
