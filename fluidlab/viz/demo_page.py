"""The page of the lecture demo: HTML, style and script as one text, with @table@ and @legend@ to be put in.

Knows the fields of `demo.State` and no tokenizer. What to notice: the page works without its keys, by four buttons, and
without its buttons, by keys; every picture has an alternative text that changes with it.
"""

TEMPLATE = """<!DOCTYPE html>
<html lang="en" data-theme="dark">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Discrete and continuous tokens</title>
<style>
:root { --ground: #ffffff; --ink: #111111; --line: #555555; }
[data-theme="dark"] { --ground: #101418; --ink: #f4f4f4; --line: #a8a8a8; }
body { margin: 0; padding: 1.5vh 2vw; background: var(--ground); color: var(--ink);
       font: clamp(18px, 1.9vw, 34px)/1.35 system-ui, sans-serif; }
h1 { font-size: 1.4em; margin: 0 0 0.3em; }
h2 { font-size: 1.1em; margin: 0 0 0.2em; }
p { margin: 0.3em 0; }
#panels { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1.5vw; }
figure { margin: 0; }
img { width: min(100%, 58vh); aspect-ratio: 1; image-rendering: pixelated; display: block;
      border: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: 0.5em; margin: 0.5em 0; }
button { font: inherit; padding: 0.2em 0.8em; color: var(--ink); background: var(--ground);
         border: 2px solid var(--line); border-radius: 0.3em; cursor: pointer; }
button:focus-visible { outline: 4px solid #E69F00; outline-offset: 2px; }
kbd { font: inherit; border: 1px solid var(--line); border-radius: 0.2em; padding: 0 0.3em; }
</style>
</head>
<body>
<main>
<h1>What is left of a picture that has become tokens?</h1>
<p id="where" role="status"></p>
<div id="panels">
<figure><h2>original</h2><img id="original" alt=""><figcaption id="original-said"></figcaption></figure>
<figure><h2>discrete</h2><img id="discrete" alt=""><figcaption id="discrete-said"></figcaption></figure>
<figure><h2>continuous</h2><img id="continuous" alt=""><figcaption id="continuous-said"></figcaption></figure>
</div>
<nav aria-label="states">
<button id="back">back <kbd>&larr;</kbd></button>
<button id="next">next <kbd>&rarr;</kbd></button>
<button id="picture">next picture <kbd>&darr;</kbd></button>
<button id="errors" aria-pressed="false">error maps <kbd>E</kbd></button>
<button id="theme">dark or light <kbd>D</kbd></button>
</nav>
<p>@legend@ All emojis designed by OpenMoji, the open-source emoji and icon project. License: CC BY-SA 4.0.</p>
</main>
<script id="table" type="application/json">@table@</script>
<script>
const { states, sources } = JSON.parse(document.getElementById("table").textContent);
const at = (id) => document.getElementById(id);
let now = 0, errors = false;
function show() {
  const state = states[now], tokens = (state.size / 16) ** 2;
  at("where").textContent = `${now + 1} of ${states.length}: ${state.picture}, ${state.size} x ${state.size} pixels, ` +
                            `${tokens} tokens${errors ? ", error maps" : ""}`;
  at("original").src = sources[state.original];
  at("original").alt = `${state.picture}, the original`;
  at("original-said").textContent = `${(state.size ** 2 * 24).toLocaleString("en")} bits uncompressed`;
  for (const kind of ["discrete", "continuous"]) {
    at(kind).src = sources[errors ? state[`${kind}_error`] : state[kind]];
    const said = state[`${kind}_said`];
    at(kind).alt = `${errors ? "error map of " : ""}${state.picture} from ${kind} tokens, ${said}`;
    at(`${kind}-said`).textContent = said;
  }
  at("errors").setAttribute("aria-pressed", String(errors));
}
function step(by) { now = (now + by + states.length) % states.length; show(); }
function turn(by) {                             // to the first state of another picture
  const names = [...new Set(states.map((state) => state.picture))];
  const name = names[(names.indexOf(states[now].picture) + by + names.length) % names.length];
  now = states.findIndex((state) => state.picture === name);
  show();
}
function theme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
}
function toggle() { errors = !errors; show(); }
const keys = { ArrowRight: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => turn(1),
               ArrowUp: () => turn(-1), e: toggle, d: theme };
document.addEventListener("keydown", (event) => {
  const act = event.ctrlKey || event.altKey || event.metaKey ? null : keys[event.key] ?? keys[event.key.toLowerCase()];
  if (act) { event.preventDefault(); act(); }
});
for (const [id, act] of [["back", () => step(-1)], ["next", () => step(1)], ["picture", () => turn(1)],
                         ["errors", toggle], ["theme", theme]]) at(id).addEventListener("click", act);
show();
</script>
</body>
</html>
"""
