(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const cards = all(".card");
  const form = document.querySelector(".filter");
  const input = form.querySelector("input");
  const output = form.querySelector("output");
  const off = form.querySelector("[data-off]");
  const states = all(".seg button");
  const columns = all("[data-column]");
  const nothing = document.querySelector(".nothing");
  const texts = new WeakMap();
  let state = "all";
  let column = "";
  let waiting = 0;

  const textOf = (card) => {
    if (!texts.has(card)) texts.set(card, card.textContent.toLowerCase());
    return texts.get(card);
  };
  const inState = (card) => ({
    all: true,
    check: card.dataset.state === "check",
    diff: card.dataset.diff !== "0",
    ok: card.dataset.state !== "check",
  })[state];
  const needs = (card) =>
    !column || all(".is-check dt, .is-open dt", card).some((dt) => dt.firstChild.data === column)
      || all(".notice b", card).some((b) => b.textContent === column);

  const show = () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const card of cards) {
      const fits = inState(card) && needs(card) && wanted.every((word) => textOf(card).includes(word));
      card.hidden = !fits;
      count += fits;
    }
    nothing.hidden = count > 0 || cards.length === 0;
    output.textContent = count === cards.length ? "" : `${count} von ${cards.length} Fotos`;
    for (const button of states) button.setAttribute("aria-pressed", String(button.dataset.state === state));
    for (const button of columns) button.setAttribute("aria-pressed", String(button.dataset.column === column));
    off.hidden = !column;
    off.textContent = column;
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(show, 80);
  });
  for (const button of states) {
    button.addEventListener("click", () => { state = button.dataset.state; show(); });
  }
  for (const button of columns) {
    button.addEventListener("click", () => {
      column = column === button.dataset.column ? "" : button.dataset.column;
      show();
      if (column) document.getElementById("fotos").scrollIntoView();
    });
  }
  off.addEventListener("click", () => { column = ""; show(); });

  // A link into a card that the filter hides shows everything first.
  document.addEventListener("click", (event) => {
    const to = event.target.closest("a[href^='#']");
    const card = to && document.getElementById(to.hash.slice(1));
    if (card && card.hidden) { state = "all"; column = ""; input.value = ""; show(); }
  });

  // The list's small pictures are those of the cards, so that each lies in the file once.
  const fill = (img) => {
    const from = document.querySelector(`#${img.dataset.of} img`);
    if (from) img.src = from.src;
  };
  const minis = all("img[data-of]");
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) { fill(entry.target); seen.unobserve(entry.target); }
    }
  }, { rootMargin: "400px" });
  for (const img of minis) seen.observe(img);

  addEventListener("beforeprint", () => {
    for (const img of minis) if (!img.src) fill(img);
    for (const rest of all(".rest")) rest.open = true;
    for (const img of all("img[loading]")) img.loading = "eager";
  });
})();
