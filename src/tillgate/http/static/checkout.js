// Keeps the page true without a reload: asks whether the payment moved, and then swaps in the page's new middle.
// Everything works without this file, only slower.
"use strict";
(() => {
  const QUICK_MS = 2500, SLOW_MS = 15000, LONGEST_MS = 20000, SLOW_TURNS = 120;
  const $ = (id) => document.getElementById(id);
  let main = $("checkout"), ahead = 0, tick, next, stream, failures = 0, slowTurns = 0, tag = "", swapping = false;

  const now = () => Date.now() + ahead;
  const say = (text) => { $("news").textContent = ""; setTimeout(() => { $("news").textContent = text; }, 60); };
  const trouble = (is) => { $("trouble").hidden = !is; };

  function clock(ms) {
    const s = Math.max(0, Math.ceil(ms / 1000)), two = (n) => String(n).padStart(2, "0");
    const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
    return (h ? h + ":" + two(m) : m) + ":" + two(s % 60);
  }

  function count() {
    const left = main.dataset.expires - now(), shown = $("left");
    if (shown) {
      shown.textContent = clock(left);
      $("bar").value = Math.max(0, left);
      if (left <= 60000 && left > 0 && !shown.dataset.said) {
        shown.dataset.said = "1";
        shown.closest(".time").classList.add("hurry");
        say(shown.dataset.minute);
      }
    }
    // Over: the page that comes now no longer has a code to scan.
    if (left <= 0 && main.dataset.state === "pending") tick = setTimeout(refresh, 250);
    else if (main.dataset.state === "pending") tick = setTimeout(count, Math.min(left % 1000 || 1000, left));
  }

  async function refresh() {
    if (swapping) return;
    swapping = true;
    clearTimeout(tick);
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("checkout");
      if (!fresh) throw new Error("no payment in the answer");
      const moved = fresh.dataset.say !== main.dataset.say, inside = main.contains(document.activeElement);
      main.replaceWith(document.adoptNode(fresh));
      document.title = page.title;
      main = fresh;
      if (inside) main.querySelector("h1").focus();
      if (moved) say(main.dataset.say);
      trouble(false);
      failures = 0;
      begin();
    } catch {
      failed();
    } finally {
      swapping = false;
    }
  }

  function failed() {
    trouble(++failures > 1 || !navigator.onLine);
    later();
  }

  async function ask() {
    clearTimeout(next);
    if (document.hidden) return; // asked at once when the payer comes back from the wallet
    try {
      const headers = tag ? { "If-None-Match": tag } : {};
      const answer = await fetch(main.dataset.address + "/state", { headers, cache: "no-store" });
      if (answer.status !== 304) {
        if (!answer.ok) throw new Error(String(answer.status));
        tag = answer.headers.get("ETag") || "";
        heard(await answer.json());
      }
      const overdue = main.dataset.state === "pending" && main.dataset.expires - now() <= 0;
      if (overdue) refresh();
      trouble(false);
      failures = 0;
      later();
    } catch {
      failed();
    }
  }

  function heard(state) {
    if (String(state.version) !== main.dataset.version) refresh();
  }

  function later() {
    clearTimeout(next);
    const slow = main.dataset.watch === "slow";
    if (main.dataset.watch === "none" || (slow && ++slowTurns > SLOW_TURNS)) return;
    if (stream && stream.readyState === EventSource.OPEN && !failures) return;
    const pause = Math.min((slow ? SLOW_MS : QUICK_MS) * 1.5 ** failures, LONGEST_MS);
    next = setTimeout(ask, pause * (0.85 + Math.random() * 0.3));
  }

  function listen() {
    if (stream || !window.EventSource || main.dataset.watch !== "quick") return;
    stream = new EventSource(main.dataset.address + "/events");
    stream.onopen = () => { trouble(false); failures = 0; };
    stream.addEventListener("state", (event) => {
      const state = JSON.parse(event.data);
      if (state.final) hush();
      heard(state);
    });
    stream.onerror = () => { if (stream && stream.readyState === EventSource.CLOSED) stream = undefined; later(); };
  }

  function hush() {
    if (stream) stream.close();
    stream = undefined;
  }

  function begin() {
    ahead = main.dataset.now - Date.now();
    for (const button of main.querySelectorAll(".copy")) {
      button.hidden = !navigator.clipboard;
      button.onclick = async () => {
        await navigator.clipboard.writeText(button.previousElementSibling.textContent);
        say(button.dataset.copied);
        button.firstChild.data = button.dataset.copied;
      };
    }
    clearTimeout(tick);
    if (main.dataset.state === "pending") count();
    if (main.dataset.watch === "quick") listen(); else hush();
    later();
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden && main.dataset.watch !== "none") ask(); });
  addEventListener("online", ask);
  addEventListener("offline", () => trouble(true));
  addEventListener("pageshow", (event) => { if (event.persisted) { hush(); refresh(); } });
  document.addEventListener("keydown", (event) => {
    const menu = document.querySelector(".languages[open]");
    if (menu && event.key === "Escape") { menu.open = false; menu.firstElementChild.focus(); }
  });
  document.addEventListener("click", (event) => {
    const menu = document.querySelector(".languages[open]");
    if (menu && !menu.contains(event.target)) menu.open = false;
  });
  begin();
})();
