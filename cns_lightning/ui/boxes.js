// Boxes with prompts of their own: drawn, moved and resized on a canvas, or entered as numbers in a row a box.
// The component's value is a list of {left, top, right, bottom, prompt, negative}, sides as parts of the picture.
const SIDES = ["left", "top", "right", "bottom"];
const LEAST = 0.03; // A box that is smaller was a click.
const COLOURS = 6;
const canvas = element.querySelector(".cns-canvas"), rows = element.querySelector(".cns-rows");
const boxes = []; // Each {sides, prompt, negative, node, row, inputs}.
const made = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};
const rounded = number => Math.round(Math.min(1, Math.max(0, number)) * 1000) / 1000;
const publish = () => {
  props.value = boxes.map(box => ({ ...box.sides, prompt: box.prompt, negative: box.negative }));
};

const place = (box, fill = true) => {
  const { left, top, right, bottom } = box.sides;
  const width = right - left, height = bottom - top;
  box.node.hidden = !(width > 0 && height > 0);
  Object.assign(box.node.style, {
    left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%`,
  });
  if (fill) SIDES.forEach(side => { box.inputs[side].value = box.sides[side]; });
};
const number = () => {
  canvas.classList.toggle("cns-empty", boxes.length === 0);
  boxes.forEach((box, index) => {
    const name = `cns-colour-${index % COLOURS}`;
    [box.node, box.row].forEach(node => {
      node.className = node.className.replace(/ cns-colour-\d/, "") + ` ${name}`;
    });
    box.node.querySelector(".cns-number").textContent = index + 1;
    box.row.querySelector(".cns-number").textContent = index + 1;
    box.node.setAttribute("aria-label", `box ${index + 1}: arrow keys move it, with Shift they resize it, Delete removes it`);
  });
};
const remove = box => {
  boxes.splice(boxes.indexOf(box), 1);
  box.node.remove();
  box.row.remove();
  number();
  publish();
};

const moved = (sides, x, y) => {
  const width = sides.right - sides.left, height = sides.bottom - sides.top;
  const left = Math.min(1 - width, Math.max(0, sides.left + x)), top = Math.min(1 - height, Math.max(0, sides.top + y));
  return { left: rounded(left), top: rounded(top), right: rounded(left + width), bottom: rounded(top + height) };
};
const keyed = (box, event) => {
  const step = { ArrowLeft: [-0.01, 0], ArrowRight: [0.01, 0], ArrowUp: [0, -0.01], ArrowDown: [0, 0.01] }[event.key];
  if (event.key === "Delete" || event.key === "Backspace") {
    remove(box);
  } else if (step && event.shiftKey) {
    const right = rounded(Math.max(box.sides.left + LEAST, box.sides.right + step[0]));
    const bottom = rounded(Math.max(box.sides.top + LEAST, box.sides.bottom + step[1]));
    Object.assign(box.sides, { right, bottom });
  } else if (step) {
    Object.assign(box.sides, moved(box.sides, ...step));
  } else {
    return;
  }
  event.preventDefault();
  if (boxes.includes(box)) { place(box); publish(); }
};

const added = sides => {
  const box = { sides, prompt: "", negative: "", node: made("div", "cns-box"), row: made("div", "cns-row"), inputs: {} };
  box.node.tabIndex = 0;
  box.node.setAttribute("role", "group");
  box.node.append(made("span", "cns-number"));
  ["nw", "ne", "sw", "se"].forEach(corner => {
    const handle = made("i", `cns-handle cns-${corner}`);
    handle.dataset.corner = corner;
    box.node.append(handle);
  });
  box.node.onkeydown = event => keyed(box, event);

  const text = (key, hint) => {
    const input = made("textarea");
    Object.assign(input, { rows: 1, placeholder: hint });
    input.setAttribute("aria-label", hint);
    input.oninput = () => { box[key] = input.value; publish(); };
    return input;
  };
  const away = made("button", "cns-remove", "×");
  Object.assign(away, { type: "button", title: "Remove this box", onclick: () => remove(box) });
  const head = made("div", "cns-line");
  head.append(made("span", "cns-number"), text("prompt", "what is in this box"), away);
  const numbers = made("div", "cns-line cns-sides");
  SIDES.forEach(side => {
    const label = made("label", "", side), input = made("input");
    Object.assign(input, { type: "number", min: 0, max: 1, step: 0.01 });
    input.oninput = () => {
      box.sides[side] = input.value === "" ? null : Number(input.value);
      place(box, false);
      publish();
    };
    box.inputs[side] = input;
    label.append(input);
    numbers.append(label);
  });
  const not = made("div", "cns-line");
  not.append(text("negative", "what to keep out of it (optional)"));
  box.row.append(head, not, numbers);

  boxes.push(box);
  canvas.append(box.node);
  rows.append(box.row);
  number();
  place(box);
  return box;
};

const at = event => {
  const frame = canvas.getBoundingClientRect();
  return [rounded((event.clientX - frame.left) / frame.width), rounded((event.clientY - frame.top) / frame.height)];
};
canvas.onpointerdown = event => {
  if (event.button !== 0) return;
  const start = at(event), node = event.target.closest(".cns-box");
  const corner = event.target.dataset.corner;
  let box = node && boxes.find(each => each.node === node);
  const isNew = !box;
  if (isNew) box = added({ left: start[0], top: start[1], right: start[0], bottom: start[1] });
  const before = { ...box.sides };
  // The corner that stays where it is.
  const fixed = isNew ? start : corner
    ? [corner.includes("w") ? before.right : before.left, corner.includes("n") ? before.bottom : before.top] : null;
  event.preventDefault();
  box.node.focus();
  canvas.setPointerCapture(event.pointerId);
  canvas.onpointermove = motion => {
    const here = at(motion);
    box.sides = fixed
      ? {
          left: Math.min(fixed[0], here[0]), top: Math.min(fixed[1], here[1]),
          right: Math.max(fixed[0], here[0]), bottom: Math.max(fixed[1], here[1]),
        }
      : moved(before, here[0] - start[0], here[1] - start[1]);
    place(box);
  };
  canvas.onpointerup = canvas.onpointercancel = () => {
    canvas.onpointermove = canvas.onpointerup = canvas.onpointercancel = null;
    const isTiny = box.sides.right - box.sides.left < LEAST || box.sides.bottom - box.sides.top < LEAST;
    if (isTiny && isNew) { remove(box); return; }
    if (isTiny) { box.sides = before; place(box); }
    publish();
    if (isNew) box.row.querySelector("textarea").focus();
  };
};

const OFFERED = [[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 1, 0.5], [0, 0.5, 1, 1]];
element.querySelector(".cns-add").onclick = () => {
  const offered = OFFERED[boxes.length % OFFERED.length];
  const box = added(Object.fromEntries(SIDES.map((side, index) => [side, offered[index]])));
  publish();
  box.row.querySelector("textarea").focus();
};
canvas.append(made("p", "cns-hint", "Drag to draw a box that has a prompt of its own"));
watch("picture", () => { canvas.style.backgroundImage = props.picture ? `url("${props.picture}")` : ""; });
number();
