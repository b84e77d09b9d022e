// Keeps the open page up to date, and signs in with a link. Nothing here decides what is allowed.
"use strict";

const body = document.body;
const topics = (body.dataset.topics || "").split(" ").filter(Boolean);
let versions = {};
try { versions = JSON.parse(body.dataset.versions); } catch { /* a page without live parts */ }
let paused = false, source = null, loading = false, again = "", said = "";

// What to fetch after a change: the page, only its strip of running operations, or nothing ('').
function wanted(now) {
  if (topics.some((topic) => now[topic] !== versions[topic])) return location.href;
  const here = encodeURIComponent(location.pathname + location.search);
  return now.running !== versions.running ? `/running?back=${here}` : "";
}

function announce() {
  const text = [...document.querySelectorAll("[data-announce]")].map((one) => one.textContent.trim()).join(", ");
  if (text && text !== said && said) document.getElementById("announce").textContent = text;
  said = text;
}

// Replaces the parts of this page that look different now; what people opened stays open, what has focus keeps it.
function put(page) {
  for (const part of document.querySelectorAll("[data-part]")) {
    const fresh = page.getElementById(part.id);
    if (!fresh) continue;
    const open = [...part.querySelectorAll("details[id][open]")].map((one) => one.id);
    for (const id of open) fresh.querySelector(`details[id="${CSS.escape(id)}"]`)?.setAttribute("open", "");
    if (fresh.innerHTML === part.innerHTML) continue;
    const marks = (root) => [...root.querySelectorAll("a, button, summary, input, select")];
    const at = marks(part).indexOf(document.activeElement);
    part.replaceChildren(...document.adoptNode(fresh).childNodes);
    if (at >= 0) marks(part)[at]?.focus({ preventScroll: true });
  }
  announce();
}

async function refresh(address = location.href) {
  // the page holds the strip too
  if (loading) { again = again === location.href ? again : address; return; }
  loading = true;
  try {
    const answer = await fetch(address, { credentials: "same-origin" });
    if (answer.status === 401) { location.reload(); return; }
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      versions = { ...versions, ...JSON.parse(page.body.dataset.versions) };
      put(page);
    }
  } catch { /* the stream says when the gateway is back */ }
  loading = false;
  if (again) { const next = again; again = ""; setTimeout(refresh, 300, next); }
}

function lost(is) {
  document.querySelector(".lost")?.remove();
  if (!is) return;
  const sign = document.createElement("p");
  sign.className = "lost";
  sign.setAttribute("role", "alert");
  sign.textContent = body.dataset.lost;
  body.append(sign);
}

function listen() {
  if (source || paused || document.hidden) return;
  source = new EventSource("/live");
  let failures = 0;
  source.onopen = () => { failures = 0; lost(false); };
  source.onmessage = (event) => { const address = wanted(JSON.parse(event.data)); if (address) refresh(address); };
  source.onerror = () => {
    failures += 1;
    if (failures > 2) lost(true);
    // after an answer that is no stream (signed out) the browser does not try again
    if (source?.readyState === EventSource.CLOSED) { hush(); setTimeout(listen, 3000); refresh(); }
  };
}

function hush() {
  source?.close();
  source = null;
}

const button = document.getElementById("pause-live");
if (body.dataset.live === "yes" && topics.length) {
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? button.dataset.off : button.dataset.on;
    if (paused) hush(); else { listen(); refresh(); }
  });
}
if (body.dataset.live === "yes") {
  announce();
  listen();
  // a browser opens six connections to a host at most: pages that nobody looks at keep none
  document.addEventListener("visibilitychange", () => { if (document.hidden) hush(); else { listen(); if (!paused) refresh(); } });
  addEventListener("pagehide", hush);
}

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    await navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent);
    copy.textContent = body.dataset.copied;
  }
  const who = document.getElementById("who");
  if (who?.open && !who.contains(event.target)) who.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.getElementById("who")?.removeAttribute("open");
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "/" && !typing) { event.preventDefault(); document.querySelector(".find input")?.focus(); }
});
document.addEventListener("submit", (event) => {
  // a second click must not order the same again
  if (event.target.method === "post") setTimeout(() => event.target.querySelectorAll("button").forEach((one) => { one.disabled = true; }));
});

// A link of `erni console`: the part behind # is sent to no server and stands in no log.
function enter() {
  const login = document.getElementById("login");
  if (!login || location.hash.length <= 20) return;
  login.elements.ticket.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname + location.search);
  login.submit();
}
enter();
addEventListener("hashchange", enter);
