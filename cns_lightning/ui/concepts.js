// Concepts in learning order: a slider over the stages, a card a concept with its token to click and its strength.
// The component's value is {stage, strengths}.
const cards = props.cards;
const state = { stage: cards.length, strengths: cards.map(() => 1) };
const made = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};
const publish = () => { props.value = { stage: state.stage, strengths: [...state.strengths] }; };

// The field that was written in last gets the next token.
const FIELDS = "#prompt textarea, #negative-prompt textarea, #negative-prompt input, #boxes textarea";
let field = null;
document.addEventListener("focusin", event => { if (event.target.matches(FIELDS)) field = event.target; });
const insert = text => {
  const target = field && document.contains(field) ? field : document.querySelector("#prompt textarea");
  const at = target === field ? [target.selectionStart, target.selectionEnd] : [target.value.length, target.value.length];
  const before = target.value.slice(0, at[0]), behind = target.value.slice(at[1]);
  const open = before && !/\s$/.test(before) ? " " : "", close = behind && !/^[\s,.;]/.test(behind) ? " " : "";
  target.setRangeText(open + text + close, at[0], at[1], "end");
  target.dispatchEvent(new Event("input", { bubbles: true }));
  target.focus();
};

const list = element.querySelector(".cns-cards");
const nodes = cards.map((card, number) => {
  const node = made("article", "cns-card");
  const button = made("button", "cns-insert");
  button.type = "button";
  button.title = `Put ${card.token} ${card.word} into the prompt`;
  if (card.picture) {
    const picture = made("img");
    picture.src = card.picture;
    picture.alt = `${card.source} of ${card.token}`;
    picture.onload = () => picture.classList.toggle("cns-small", picture.naturalWidth < 128);
    button.append(picture);
  } else {
    button.append(made("span", "cns-plain", card.word.slice(0, 1)));
  }
  button.append(made("span", "cns-token", card.token), made("span", "cns-word", card.word));
  button.onclick = () => insert(`${card.token} ${card.word}`);
  node.append(button);
  if (card.has_strength) {
    const label = made("label", "cns-strength"), input = made("input"), shown = made("output", "", "1");
    Object.assign(input, { type: "range", min: 0, max: props.largest, step: 0.05, value: 1 });
    input.setAttribute("aria-label", `strength of ${card.token}`);
    input.oninput = () => {
      state.strengths[number] = Number(input.value);
      shown.textContent = String(state.strengths[number]);
      label.classList.toggle("cns-changed", state.strengths[number] !== 1);
      publish();
    };
    label.title = "Strength: how much of what the concept adds to the weights is taken";
    label.append(input, shown);
    node.append(label);
  }
  list.append(node);
  return node;
});

const show = () => nodes.forEach((node, number) => {
  node.classList.toggle("cns-later", number >= state.stage);
  node.querySelectorAll("button, input").forEach(each => { each.disabled = number >= state.stage; });
});
if (cards.length > 1) {
  const label = made("label", "cns-stage"), input = made("input"), shown = made("output");
  Object.assign(input, { type: "range", min: 1, max: cards.length, step: 1, value: cards.length });
  input.setAttribute("aria-label", "the model after concept");
  const said = () => { shown.textContent = `${state.stage} of ${cards.length}: ${cards[state.stage - 1].token}`; };
  input.oninput = () => { state.stage = Number(input.value); said(); show(); publish(); };
  label.append(made("span", "", "The model after concept"), input, shown);
  element.querySelector(".cns-stages").append(label);
  said();
}
show();
