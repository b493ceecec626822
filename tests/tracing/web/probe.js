// Walks through a page with its keys, and lists what is wrong with what it shows.
(narrow) => {
  const SHORT = 30;
  const complaints = [];
  const checked = new Set();
  const isNew = (element) => !checked.has(element) && checked.add(element);
  const status = document.getElementById("status");
  const complain = (text) => complaints.push(`${innerWidth} pixels, ${status.textContent}: ${text}`);
  const expect = (holds, text) => holds || complain(text);
  const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const seen = (element) => {
    const box = element.getBoundingClientRect();
    return box.width > 2 && box.height > 2;
  };

  function isDrawn(canvas) {
    if (narrow) return true;
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const bytes = Uint8Array.from(atob(canvas.dataset.numbers), (sign) => sign.charCodeAt(0));
    const zero = new Float32Array(bytes.buffer).every((number) => number === 0);
    return bytes.length > 0 && (zero || data.some((level) => level > 0)) && canvas.ariaLabel;
  }

  function isPicture(figure) {
    const [tables, canvases, scalars] = ["td", "canvas", ".scalar"].map((selector) => all(selector, figure));
    const drawn = [...tables, ...scalars].every((cell) => cell.textContent) && canvases.every(isDrawn);
    return drawn && [...tables, ...canvases, ...scalars].some(seen) && canvases.every(seen);
  }

  function checkHalf(half) {
    const equations = all("math", half);
    const numbered = half.dataset.title?.startsWith("(");
    if (numbered) expect(equations.length > 0, "no equation");
    for (const math of equations) {
      expect(seen(math) && math.textContent.trim() && math.ariaLabel, "an empty equation");
      expect(!math.textContent.includes("\\"), "an equation with LaTeX in it");
    }
    for (const equation of narrow ? [] : all(".equation", half)) {
      expect(equation.scrollWidth <= equation.clientWidth + 1, "an equation that is too wide");
    }
    if (numbered) expect(seen(all("pre", half)[0]), "no line of code");
    const figures = all(".array", half);
    if (!half.matches(".none")) expect(figures.length > 0, "no array");
    for (const figure of figures) expect(isPicture(figure), `no picture of ${figure.dataset.name}`);
  }

  function checkMirror(pair, half) {
    const other = all("[data-at]", pair).find((one) => one !== half);
    const {title, parts} = half.dataset;
    if (other === undefined || !title.startsWith("(")) return;
    const mirrored = title.endsWith("')") ? title.replace("'", "") : title.replace(")", "')");
    expect(other.dataset.title === mirrored && other.dataset.parts === parts, "another step as its mirror image");
  }

  function checkCircuit(circuit) {
    const svg = circuit.querySelector("svg");
    expect(svg && seen(svg), "no circuit");
    const on = all("a.forward, a.backward, a.inside", svg);
    expect(on.length > 0, "a circuit without the step");
    if (!isNew(svg)) return;
    const {width} = svg.viewBox.baseVal;
    const boxes = Math.min(...all("rect", svg).map((box) => box.x.baseVal.value));
    for (const text of all("text", svg)) {
      const {x, width: length} = text.getBBox();
      expect(x + length <= (text.closest("a") ? width : boxes), `no room for ${text.textContent}`);
    }
  }

  function check(at) {
    const shown = all(".example.shown .pair.shown").filter(seen);
    expect(shown.length === 1, `${shown.length} steps at once`);
    const half = shown[0]?.querySelector(".current");
    expect(Number(half?.dataset.at) === at, `a key that does nothing; expected step ${at + 1}`);
    if (!half) return;
    expect(status.textContent.includes(half.dataset.title), "a status of another step");
    expect(Number(document.getElementById("slider").value) === at, "a slider that stays behind");
    expect(document.documentElement.scrollWidth <= innerWidth, "an overflow");
    if (isNew(shown[0])) all(".half", shown[0]).forEach(checkHalf);
    checkMirror(shown[0], half);
    const circuits = all(".example.shown .circuit.shown").filter(seen);
    expect(circuits.length > 0, "no circuit");
    circuits.forEach(checkCircuit);
  }

  // All steps of the example at once: to show one after the other takes as long for each.
  function checkTogether() {
    for (const one of all(".example.shown :is(.pair, .circuit)")) {
      one.classList.add("shown");
      one.classList.remove("outer");
    }
    expect(document.documentElement.scrollWidth <= innerWidth, "an overflow");
    all(".example.shown .half").forEach(checkHalf);
    for (const circuit of all(".example.shown .circuit")) expect(all("svg", circuit).some(seen), "no circuit");
    press("Home");
  }

  const radios = all("[name=example]");
  if (narrow) {
    radios.at(-1)?.click();
    checkTogether();
  }
  for (const radio of narrow ? [] : radios) {
    radio.click();
    press("Home");
    const count = all(".example.shown [data-at]").length;
    // All others stand beside these; that keys are heard on the way back too, the first example of a short page shows.
    const walked = radio !== radios[0] || count > SHORT ? Math.ceil(count / 2) : count;
    for (let at = 0; at < walked; at++) {
      check(at);
      press("ArrowRight");
    }
    press("End");
    press("ArrowLeft");
    expect(status.textContent.startsWith(`${count - 1} of`), "a key that does nothing: ←");
    press("m");
    press("m");
    press("End");
    expect(status.textContent.startsWith(`${count} of`), "a key that does nothing: End");
  }
  for (const control of all("button, input, canvas, [tabindex]")) {
    const label = control.ariaLabel || control.textContent.trim() || control.labels?.[0]?.textContent;
    if (!label) complain(`a control without a label: ${control.outerHTML.slice(0, 60)}`);
  }
  return complaints;
}
