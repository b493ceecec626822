// Walks through a page with its keys, and lists what is wrong with what it shows.
(narrow) => {
  const LAID_OUT = 3; // steps
  const complaints = [];
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
    const {width} = svg.viewBox.baseVal;
    const boxes = Math.min(...all("rect", svg).map((box) => box.x.baseVal.value));
    for (const text of all("text", svg)) {
      const {x, width: length} = text.getBBox();
      expect(x + length <= (text.closest("a") ? width : boxes), `no room for ${text.textContent}`);
    }
  }

  function check(at, laidOut) {
    const isShown = (element) => !laidOut || seen(element);
    const shown = all(".example.shown .pair.shown").filter(isShown);
    expect(shown.length === 1, `${shown.length} steps at once`);
    const half = shown[0]?.querySelector(".current");
    expect(Number(half?.dataset.at) === at, `a key that does nothing; expected step ${at + 1}`);
    if (!half) return;
    expect(status.textContent.includes(half.dataset.title), "a status of another step");
    expect(Number(document.getElementById("slider").value) === at, "a slider that stays behind");
    if (laidOut) expect(document.documentElement.scrollWidth <= innerWidth, "an overflow");
    checkMirror(shown[0], half);
    const circuits = all(".example.shown .circuit.shown").filter(isShown);
    expect(circuits.length > 0, "no circuit");
    for (const circuit of circuits) {
      expect(all("a.forward, a.backward, a.inside", circuit).length > 0, "a circuit without the step");
    }
  }

  // All steps of the example at once: to lay out one after the other takes as long for each.
  function checkTogether() {
    for (const one of all(".example.shown :is(.pair, .circuit)")) {
      one.classList.add("shown");
      one.classList.remove("outer");
    }
    expect(document.documentElement.scrollWidth <= innerWidth, "an overflow");
    const isTooWide = (equation) => equation.scrollWidth > equation.clientWidth;
    all(".example.shown .equation").filter(isTooWide).forEach(fit);
    all(".example.shown .half").forEach(checkHalf);
    all(".example.shown .circuit").forEach(checkCircuit);
    press("Home");
  }

  // By keys. What is laid out anew for each step takes most of the time: it is for the first ones alone.
  function walk(laidOut) {
    const count = all(".example.shown [data-at]").length;
    const [itsCentre, itsFit] = [centre, fit];
    for (let at = 0; at < count; at++) {
      if (at === laidOut) centre = fit = () => {};
      check(at, at < laidOut);
      press("ArrowRight");
    }
    [centre, fit] = [itsCentre, itsFit];
    press("End");
    press("ArrowLeft");
    expect(status.textContent.startsWith(`${count - 1} of`), "a key that does nothing: ←");
    press("m");
    press("m");
    press("End");
    expect(status.textContent.startsWith(`${count} of`), "a key that does nothing: End");
  }

  // All examples have the same equations: on a wide screen the first is laid out, on a narrow one the last.
  const radios = all("[name=example]");
  dispatchEvent(new Event("beforeprint")); // draws all pictures
  for (const radio of narrow ? radios.slice(-1) : radios) {
    radio.click();
    press("Home");
    if (narrow || radio === radios[0]) checkTogether();
    else for (const canvas of all(".example.shown canvas")) expect(isDrawn(canvas), "an empty picture");
    if (!narrow) walk(radio === radios[0] ? LAID_OUT : 0);
  }
  for (const control of all("button, input, canvas, [tabindex]")) {
    const label = control.ariaLabel || control.textContent.trim() || control.labels?.[0]?.textContent;
    if (!label) complain(`a control without a label: ${control.outerHTML.slice(0, 60)}`);
  }
  return complaints;
}
