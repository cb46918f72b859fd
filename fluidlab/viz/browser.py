"""Controls of our own that live in the browser: a slider, a player, a picture that can be clicked, a tray.

ipywidgets' slider and Play have no name that a screen reader could say, and it has neither a picture that tells where
it was clicked nor things that can be dragged. Each control here is a native HTML element with a few lines of
JavaScript, and a model of a few traits that Python sees. What to notice: JupyterLab hears every key that is pressed in
a slider, list or button, and takes it for its own: an arrow moves to another cell, "r" turns the cell to raw text, and
"d" twice deletes it. `KeyGuard` keeps the keys of the box that it stands in.

Where anywidget is missing, ipywidgets' nearest relatives stand in under the same names.
"""

import ipywidgets
import traitlets

try:
    import anywidget
except ImportError:                             # an older environment: the course still runs
    anywidget = None

GUARD = """
function render({ el }) {
  el.style.display = "none";
  const keep = (event) => {
    if (!event.ctrlKey && !event.metaKey && event.key !== "Escape") event.stopPropagation();
  };
  const attach = () => el.isConnected ? el.parentElement.addEventListener("keydown", keep)
                                      : requestAnimationFrame(attach);
  attach();
}
export default { render };
"""

RANGE = """
function render({ model, el }) {
  const input = document.createElement("input");
  input.type = "range";
  input.style.width = "15em";
  input.setAttribute("aria-label", model.get("label"));
  const show = () => {
    for (const name of ["min", "max", "step", "value"]) input[name] = model.get(name);   // the value last
  };
  for (const name of ["min", "max", "step", "value"]) model.on(`change:${name}`, show);
  input.addEventListener("input", () => { model.set("value", Number(input.value)); model.save_changes(); });
  show();
  el.append(input);
}
export default { render };
"""

PLAYER = """
function render({ model, el }) {
  const button = document.createElement("button");
  button.className = "jupyter-widgets jupyter-button widget-button";
  let timer = null;
  const put = (value) => { model.set("value", value); model.save_changes(); };
  const pause = () => { clearInterval(timer); timer = null; button.textContent = "play"; };
  const play = () => {
    if (model.get("value") >= model.get("max")) put(0);
    timer = setInterval(() => model.get("value") < model.get("max") ? put(model.get("value") + 1) : pause(),
                        model.get("interval"));
    button.textContent = "pause";
  };
  button.addEventListener("click", () => timer === null ? play() : pause());
  pause();
  el.append(button);
  return pause;
}
export default { render };
"""

CLICKED = """
function render({ model, el }) {
  const show = () => { el.innerHTML = model.get("value"); };
  model.on("change:value", show);
  el.addEventListener("click", (event) => {
    if (event.target.tagName !== "IMG") return;
    const box = event.target.getBoundingClientRect();
    model.set("spot", [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
    model.save_changes();
  });
  show();
}
export default { render };
"""

TRAY = """
function render({ model, el }) {
  const lists = new Map(), things = new Map();
  const put = (name, inside) => {
    const chosen = new Set(model.get("value"));
    inside ? chosen.add(name) : chosen.delete(name);
    model.set("value", model.get("options").filter((option) => chosen.has(option)));
    model.save_changes();
  };
  for (const inside of [true, false]) {
    const list = document.createElement("ul"), title = model.get(inside ? "description" : "outside");
    list.setAttribute("aria-label", title);
    list.style.cssText = "display:flex;flex-wrap:wrap;gap:6px;list-style:none;margin:2px 0;padding:6px;" +
                         "min-height:2.4em;border:1px dashed currentColor;border-radius:4px";
    list.addEventListener("dragover", (event) => event.preventDefault());
    list.addEventListener("drop", (event) => {
      event.preventDefault();
      const name = event.dataTransfer.getData("text/plain");
      if (things.has(name)) put(name, inside);
    });
    const heading = document.createElement("div");
    heading.textContent = title;
    el.append(heading, list);
    lists.set(inside, list);
  }
  for (const name of model.get("options")) {
    const item = document.createElement("li"), button = document.createElement("button");
    button.className = "jupyter-widgets jupyter-button widget-button";
    button.textContent = name;
    button.draggable = true;
    button.style.width = "auto";
    button.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/plain", name));
    button.addEventListener("click", () => put(name, !model.get("value").includes(name)));
    item.append(button);
    things.set(name, item);
  }
  const show = () => {
    const focused = document.activeElement, chosen = model.get("value");
    for (const [name, item] of things) {
      item.firstChild.setAttribute("aria-pressed", String(chosen.includes(name)));
      lists.get(chosen.includes(name)).append(item);
    }
    if (el.contains(focused)) focused.focus();          // moving an element takes the focus from it
  };
  model.on("change:value", show);
  show();
}
export default { render };
"""

if anywidget is None:
    KeyGuard = ipywidgets.HTML

    def Range(label, **numbers):                                                        # noqa: N802
        return ipywidgets.FloatSlider(readout=False, **numbers)

    Player = ipywidgets.Play

    class ClickPicture(ipywidgets.HTML):
        spot = traitlets.List(traitlets.Float())

    class Tray(ipywidgets.SelectMultiple):
        outside = traitlets.Unicode()
else:
    class KeyGuard(anywidget.AnyWidget):
        """Not seen: of the keys that are pressed in its parent JupyterLab hears Escape and those with Control only."""

        _esm = GUARD

    class Range(anywidget.AnyWidget):
        """A native range input; numbers outside take the nearest end. The label is what a screen reader says."""

        _esm = RANGE
        label = traitlets.Unicode().tag(sync=True)
        value, min, max, step = (traitlets.CFloat().tag(sync=True) for _ in range(4))

        @traitlets.validate("value")
        def _clamp(self, proposal):
            return min(max(proposal["value"], self.min), self.max)

    class Player(anywidget.AnyWidget):
        """A button that counts `value` up to `max`, one every `interval` milliseconds, in the browser."""

        _esm = PLAYER
        value, min, max = (traitlets.CInt().tag(sync=True) for _ in range(3))
        interval = traitlets.Int(600).tag(sync=True)

    class ClickPicture(anywidget.AnyWidget):
        """HTML that is replaced as a whole; `spot` is where its picture was clicked last, (x, y) from 0 to 1."""

        _esm = CLICKED
        value = traitlets.Unicode().tag(sync=True)
        spot = traitlets.List(traitlets.Float()).tag(sync=True)

    class Tray(anywidget.AnyWidget):
        """Two trays of buttons: drag one across, or press it, and it changes sides; `value` lists those inside."""

        _esm = TRAY
        description, outside = traitlets.Unicode().tag(sync=True), traitlets.Unicode().tag(sync=True)
        options = traitlets.List(traitlets.Unicode()).tag(sync=True)
        value = traitlets.List(traitlets.Unicode()).tag(sync=True)
