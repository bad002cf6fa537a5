// Basics that every page must keep; returns sentences about what is wrong.
(() => {
  const problems = [];
  const seen = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const name = (element) =>
    (element.getAttribute("aria-label") || element.title || element.textContent || "").trim();
  const say = (element) => element.outerHTML.slice(0, 120);

  if (!document.documentElement.lang) problems.push("the page has no language");
  if (document.querySelectorAll("main").length !== 1) problems.push("not exactly one main");
  if (document.querySelectorAll("h1").length !== 1) problems.push("not exactly one h1");

  for (const field of document.querySelectorAll("input, select, textarea")) {
    if (["hidden", "submit"].includes(field.type)) continue;
    if (!field.labels?.length && !field.getAttribute("aria-label")) problems.push(`no label: ${say(field)}`);
  }
  for (const element of document.querySelectorAll("a[href], button, summary")) {
    if (!name(element)) problems.push(`no name: ${say(element)}`);
  }
  for (const image of document.querySelectorAll("img")) {
    if (!image.hasAttribute("alt")) problems.push(`no alternative text: ${say(image)}`);
  }
  for (const picture of document.querySelectorAll("svg")) {
    const silent = picture.closest("[aria-hidden=true]");
    const named = picture.getAttribute("aria-label") || picture.parentElement.closest("svg");
    if (!silent && !named) problems.push(`a picture without words: ${say(picture)}`);
  }
  let level = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    if (!seen(heading)) continue;
    const next = Number(heading.tagName[1]);
    if (next > level + 1) problems.push(`heading jumps from ${level} to ${next}: ${say(heading)}`);
    level = next;
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids.filter((each, at) => ids.indexOf(each) !== at))) {
    problems.push(`id twice: ${id}`);
  }
  for (const element of document.querySelectorAll("[aria-describedby], [aria-labelledby]")) {
    for (const kind of ["aria-describedby", "aria-labelledby"]) {
      for (const id of (element.getAttribute(kind) || "").split(" ").filter(Boolean)) {
        if (!document.getElementById(id)) problems.push(`${kind} points nowhere: ${id}`);
      }
    }
  }
  const root = document.scrollingElement;
  if (root.scrollWidth > root.clientWidth + 1) {
    problems.push(`scrolls sideways: ${root.scrollWidth} > ${root.clientWidth}`);
  }

  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const part = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return rgba("white");
  };
  const told = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !seen(element)) continue;
    if (element.closest("option, script, noscript, .visually-hidden, :disabled")) continue;
    const [light, dark] = [rgba(getComputedStyle(element).color), behind(element)]
      .map(luminance).sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5 && !told.has(element.className)) {
      told.add(element.className);
      problems.push(`contrast ${ratio.toFixed(2)}: ${say(element)}`);
    }
  }
  return problems;
})()
