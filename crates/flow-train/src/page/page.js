for (const table of document.querySelectorAll('table')) {
  const heads = [...table.querySelectorAll('th')], body = table.tBodies[0];
  const key = (row, column) => row.cells[column].textContent.trim();
  heads.forEach((head, column) => head.addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') !== 'ascending' ? 1 : -1;
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down > 0 ? 'ascending' : 'descending');
    const compare = (a, b) => {
      const [x, y] = [key(a, column), key(b, column)], [p, q] = [parseFloat(x), parseFloat(y)];
      return Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y) : p - q;
    };
    body.append(...[...body.rows].sort((a, b) => down * compare(a, b)));
  }));
}
const large = document.createElement('dialog'), shown = document.createElement('img');
large.append(shown);
large.addEventListener('click', () => large.close());
document.body.append(large);
for (const picture of document.querySelectorAll('figure img')) {
  const show = () => { shown.src = picture.src; shown.alt = picture.alt; large.showModal(); };
  picture.addEventListener('click', show);
  picture.addEventListener('keydown', event => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); show(); } });
}
