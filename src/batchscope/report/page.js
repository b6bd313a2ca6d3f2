"use strict";
// Draws the charts when they come into view, in the colours of the page; chooses goals; sorts tables.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const drawn = new Map(); // place -> figure as it was written, with the names of its colours

  const coloured = (node, styles, key = "") => {
    if (Array.isArray(node)) return node.map((item) => coloured(item, styles, key));
    if (node && typeof node === "object")
      return Object.fromEntries(Object.entries(node).map(([k, v]) => [k, coloured(v, styles, k)]));
    const name = /color/.test(key) && typeof node === "string" && /^var\((--[\w-]+)\)$/.exec(node);
    return name ? styles.getPropertyValue(name[1]).trim() : node;
  };

  // What depends on the room there is: every second tick, or every fourth, where all would not fit; the names of
  // the regimes; and the legend, which gets rows of its own under that of the title and the buttons. Nothing here
  // may depend on the margins, which follow from what is decided here: it would never come to rest.
  const fitted = (plot, written) => {
    const update = {};
    const full = plot._fullLayout;
    const set = (part, path, key, wanted) => {
      if (JSON.stringify(part[key]) !== JSON.stringify(wanted)) update[`${path}.${key}`] = wanted;
    };
    const size = { x: full.width - 80, y: full.height - 140 };
    const share = (value, { range }) => (Math.log10(value) - range[0]) / (range[1] - range[0]);
    for (const key of Object.keys(written.layout)) {
      const axis = written.layout[key];
      if (!/^[xy]axis\d*$/.test(key) || !axis.tickvals || axis.type !== "log") continue;
      const seen = axis.ticktext.filter((_, i) => Math.abs(share(axis.tickvals[i], full[key]) - 0.5) <= 0.5);
      const room = key[0] === "x" ? 12 + 8 * Math.max(1, ...seen.map((text) => text.length)) : 20;
      let step = 1;
      while (seen.length / step > Math.max(1, (size[key[0]] * (full[key].domain[1] - full[key].domain[0])) / room)) step *= 2;
      const kept = (list) => list.filter((_, i) => i % step === 0);
      const put = (name, wanted) => set(plot.layout[key], key, name, wanted);
      put("tickmode", seen.length < 2 ? "auto" : "array");
      if (seen.length < 2) continue;
      put("tickvals", kept(axis.tickvals));
      put("ticktext", kept(axis.ticktext));
    }
    (written.layout.annotations || []).forEach((note, i) => {
      const shape = (written.layout.shapes || []).find((s) => s.name && s.name === note.name);
      if (!shape) return;
      const [low, high] = [shape.x0, shape.x1].map((x) => Math.min(1, Math.max(0, share(x, full.xaxis))));
      const width = (high - low) * size.x;
      const fits = width > 8 * Math.max(...note.text.split("<br>").map((word) => word.length));
      // At the right end, where the curve is low, there is room for upright letters.
      const upright = !fits && width > 18 && shape.name === written.layout.shapes.at(-1).name && i > 0;
      const middle = full.xaxis.range[0] + ((low + high) / 2) * (full.xaxis.range[1] - full.xaxis.range[0]);
      const put = (name, wanted) => set(plot.layout.annotations[i], `annotations[${i}]`, name, wanted);
      put("visible", fits || upright);
      put("x", Number(middle.toFixed(6)));
      put("textangle", upright ? -90 : 0);
      put("text", upright ? note.text.replace("<br>", " ") : note.text);
    });
    if (full.showlegend && full.legend && full.legend._height)
      set(plot.layout.margin, "margin", "t", Math.ceil(full.legend._height) + (sharesRow(full, written) ? 10 : 40));
    if (Object.keys(update).length) Plotly.relayout(plot, update);
  };

  // Without a title, a short legend stands beside the buttons.
  const sharesRow = (full, written) => !written.layout.title.text && full.legend._width + 180 < full.width;

  const draw = (plot) => {
    const first = !drawn.has(plot);
    if (first) drawn.set(plot, JSON.parse(plot.nextElementSibling.textContent));
    const written = drawn.get(plot);
    const figure = coloured(written, getComputedStyle(root));
    figure.layout.uirevision = "same";
    figure.layout.width = plot.clientWidth;
    const file = { filename: plot.dataset.file };
    const vector = {
      name: "toVector",
      title: "Download as SVG",
      icon: Plotly.Icons.disk,
      click: (gd) => Plotly.downloadImage(gd, { ...file, format: "svg", width: gd.clientWidth, height: gd.clientHeight }),
    };
    Plotly.react(plot, figure.data, figure.layout, {
      displaylogo: false,
      plotlyServerURL: "",
      toImageButtonOptions: { ...file, format: "png", scale: 3 },
      modeBarButtons: [
        plot.clientWidth < 330 ? ["toImage"] : ["toImage", vector],
        plot.clientWidth < 600 ? ["resetScale2d"] : ["zoomIn2d", "zoomOut2d", "resetScale2d"],
      ],
    });
    if (first) plot.on("plotly_afterplot", () => fitted(plot, written));
    fitted(plot, written);
  };

  const redraw = () => {
    for (const plot of drawn.keys()) if (plot.clientWidth) draw(plot);
  };
  const inView = new IntersectionObserver(
    (entries) => entries.forEach((entry) => {
      if (entry.isIntersecting && (!drawn.has(entry.target) || entry.target.layout.width !== entry.target.clientWidth))
        draw(entry.target);
    }),
    { rootMargin: "400px" },
  );
  const load = async () => {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
    document.querySelectorAll(".plot").forEach((plot) => inView.observe(plot));
  };
  load().catch((error) => {
    root.classList.remove("js");
    const note = document.createElement("p");
    note.className = "note";
    note.textContent = `The charts need a browser of 2023 or newer (${error}); the rest does not.`;
    document.getElementById("main").prepend(note);
  });
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 120);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  const everything = () =>
    window.Plotly && document.querySelectorAll(".plot").forEach((plot) => plot.clientWidth && draw(plot));
  addEventListener("beforeprint", () => {
    root.dataset.theme = "light";
    root.classList.add("printing"); // as wide as paper: a chart cannot be redrawn once it is on the press
    everything();
  });
  addEventListener("afterprint", () => {
    delete root.dataset.theme;
    root.classList.remove("printing");
    redraw();
  });

  const choose = (kind, id) =>
    document.querySelectorAll(kind).forEach((part) => part.classList.toggle("chosen", part.dataset.of === id));
  const goals = [...document.querySelectorAll('.choice input[name="goal"]')];
  const goal = (input) => {
    input.checked = true;
    choose(".panel", input.value);
  };
  goals.forEach((input) =>
    input.addEventListener("change", () => {
      goal(input);
      history.replaceState(null, "", `#${input.value}`);
    }),
  );
  const panels = document.querySelectorAll(".panel");
  if (panels.length) {
    const asked = goals.find((input) => `#${input.value}` === location.hash) || goals[0];
    if (asked) goal(asked);
    else panels[0].classList.add("chosen");
  }
  const views = document.querySelectorAll(".views select");
  const view = (value) => {
    views.forEach((select) => (select.value = value));
    choose(".view", value);
  };
  views.forEach((select) => select.addEventListener("change", () => view(select.value)));
  const any = document.querySelector(".view");
  if (any) view(any.dataset.of);

  document.querySelectorAll("th button").forEach((button) =>
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const body = head.closest("table").tBodies[0];
      const key = (row) => row.cells[head.cellIndex].dataset.value;
      const numbers = [...body.rows].every((row) => key(row) === undefined || !Number.isNaN(Number(key(row))));
      const order = (a, b) => {
        if (key(a) === undefined || key(b) === undefined) return (key(a) === undefined) - (key(b) === undefined);
        const difference = numbers ? key(a) - key(b) : key(a).localeCompare(key(b));
        return ascending ? difference : -difference;
      };
      body.append(...[...body.rows].sort(order));
    }),
  );
})();
