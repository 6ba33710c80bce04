"use strict";
const $ = (id) => document.getElementById(id);
const MODES = { card: "Card", bnpl: "Buy now, pay later", duitnow_qr: "DuitNow QR", ipp: "Instalments" };
const STATUS = {
  waiting: "Press OK to approve", choosing: "Choose a plan on the kiosk", silent: "No answer will be sent",
  charged: "Approved", failed: "Declined", cancelled: "Cancelled by the kiosk", unlisted: "Odd status sent", error: "Error",
};
let typed = "";

function element(tag, text, className) {
  const node = document.createElement(tag);
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const reply = await fetch(path, options);
  const data = await reply.json();
  if (!reply.ok) throw new Error(data.detail);
  return data;
}

function show(state) {
  $("pos").textContent = `${state.pos_id} · ${state.dialect}`;
  $("link").textContent = state.connected ? "online" : "offline";
  $("link").title = state.kiosk;
  $("link").classList.toggle("on", state.connected);
  const last = state.transactions[state.transactions.length - 1];
  const shown = state.transactions.find((item) => item.txn_id === state.current) || last;
  $("mode").textContent = shown ? MODES[shown.payment_mode] || shown.payment_mode : "Idle";
  $("amount").textContent = shown ? `RM ${Number(shown.amount).toFixed(2)}` : "";
  $("status").textContent = shown ? STATUS[shown.status] || shown.status : "Waiting for the kiosk";
  $("txn").textContent = shown ? shown.txn_id : "";
  $("typed").textContent = typed;
  const auto = $("auto");
  if (!auto.options.length) {
    auto.add(new Option("wait for a key", ""));
    for (const [name, text] of Object.entries(state.actions)) auto.add(new Option(text.toLowerCase(), name));
  }
  if (document.activeElement !== auto) auto.value = state.auto || "";
  if (document.activeElement !== $("on_cancel")) $("on_cancel").value = state.on_cancel;
  $("payments").replaceChildren(...state.transactions.slice().reverse().map((item) => {
    const row = document.createElement("tr");
    row.append(element("td", item.txn_id), element("td", item.payment_mode),
      element("td", Number(item.amount).toFixed(2), "number"), element("td", item.status + (item.plan_id ? ` (${item.plan_id})` : "")));
    return row;
  }));
  $("log").replaceChildren(...state.log.slice().reverse().map((entry) =>
    element("li", `${new Date(entry.at * 1000).toLocaleTimeString()}  ${entry.text}`, entry.kind)));
}

async function press(action) {
  const body = { action };
  if (action === "answer_late" && typed) body.after_s = Number(typed);
  if (action === "wrong_amount" && typed) body.amount = Number(typed) / 100;
  typed = "";
  try {
    show(await call("act", body));
    $("problem").textContent = "";
  } catch (error) {
    $("problem").textContent = error.message;
  }
}

for (const digit of ["1", "2", "3", "4", "5", "6", "7", "8", "9", "", "0", ""]) {
  const key = element(digit ? "button" : "span", digit);
  if (digit) key.dataset.key = digit;
  $("keys").append(key);
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.action) press(button.dataset.action);
  else if (button.dataset.key === "clear") typed = "";
  else if (button.dataset.key) typed = (typed + button.dataset.key).slice(0, 9);
  $("typed").textContent = typed;
});
for (const name of ["auto", "on_cancel"]) {
  $(name).addEventListener("change", async () => {
    const value = $(name).value || null;
    $(name).blur();
    show(await call("settings", { [name]: value }));
  });
}
async function follow() {
  try {
    show(await call("state"));
  } catch {
    $("link").textContent = "the terminal program is gone";
    $("link").classList.remove("on");
  }
  setTimeout(follow, 400);
}
follow();
