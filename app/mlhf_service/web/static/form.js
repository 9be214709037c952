// A form for a JSON document, made from its JSON Schema. Each input is marked with the JSON
// pointer of what it edits; what is left empty is not in the document.

const words = (name) => name.replaceAll("_", " ");

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const keysOf = (pointer) => pointer.split("/").slice(1);

function read(document_, pointer) {
  return keysOf(pointer).reduce((value, key) => value?.[key], document_);
}

export function write(document_, pointer, value) {
  const keys = keysOf(pointer);
  const last = keys.pop();
  let place = document_;
  for (const key of keys) place = place[key] ??= {};
  if (value !== undefined) place[last] = value;
  else if (Array.isArray(place)) place.splice(Number(last), 1);
  else delete place[last];
}

// What a person typed: a number where it is one; else JSON, else text, and the service says why not.
function parsed(text, schema) {
  if (text.trim() === "") return undefined;
  if (schema.type === "string") return text;
  const list = schema.type === "array" && !text.trim().startsWith("[");
  try { return JSON.parse(list ? `[${text}]` : text); } catch { /* not JSON */ }
  return list ? text.split(",").map((part) => part.trim()).filter(Boolean) : text;
}

function shown(value, schema) {
  if (value === undefined) return "";
  if (schema.type === "array" && Array.isArray(value) && value.every((one) => typeof one !== "object")) return value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}

export class SchemaForm {
  // names: what "model", "loss", "optimizer" and "dataset" may be called, each with its params' schema.
  constructor(place, names, changed) {
    this.place = place;
    this.names = names;
    this.changed = changed;
  }

  show(schema, document_) {
    this.schema = schema;
    this.document = document_;
    const open = [...this.place.querySelectorAll("details[open]")].map((one) => one.dataset.at);
    const first = ["name", "model", "dataset", "loss", "optimizer", "optimizers", "tasks", "seed", "seeds", "budget", "batch_size", "target"];
    const names = Object.keys(schema.properties).filter((name) => name !== "kind");
    const more = element("details", { "data-at": "more" }, element("summary", {}, "More"));
    more.append(...names.filter((name) => !first.includes(name)).map((name) => this.property(schema, name, "")));
    this.place.replaceChildren(...first.filter((name) => names.includes(name)).map((name) => this.property(schema, name, "")), more);
    for (const one of this.place.querySelectorAll("details")) if (open.includes(one.dataset.at)) one.open = true;
  }

  // A schema without references; null, which means to leave out, is no choice.
  plain(schema, root) {
    let found = schema;
    while (found.$ref ?? found.allOf ?? found.anyOf) {
      if (found.$ref) found = { ...root.$defs[found.$ref.split("/").at(-1)], ...(found.default !== undefined && { default: found.default }) };
      else {
        const choices = (found.allOf ?? found.anyOf).filter((one) => one.type !== "null");
        if (choices.length !== 1) break;
        found = { description: found.description, default: found.default, ...choices[0] };
      }
    }
    return found;
  }

  property(schema, name, at, root = this.schema) {
    const required = schema.required?.includes(name);
    return this.field(this.plain(schema.properties[name], root), words(name), `${at}/${name}`, root, required);
  }

  field(schema, label, pointer, root, required) {
    if ("const" in schema) return "";
    const kind = this.kindOf(schema, pointer);
    if (kind) return this.component(schema, label, pointer, root, kind);
    if (schema.oneOf) return this.union(schema, label, pointer, root);
    if (schema.properties) return this.group(label, pointer, Object.keys(schema.properties).map((name) => this.property(schema, name, pointer, root)), required);
    const items = schema.type === "array" && this.plain(schema.items, root);
    if (items && (items.properties || items.oneOf)) return this.list(items, label, pointer, root);
    return this.input(schema, label, pointer, required);
  }

  kindOf(schema, pointer) {
    if (!schema.properties?.name || !schema.properties.params) return undefined;
    const key = keysOf(pointer).filter((one) => !/^\d+$/.test(one)).at(-1);
    return Object.keys(this.names).find((kind) => key === kind || key === `${kind}s`);
  }

  group(label, pointer, children, open) {
    const given = read(this.document, pointer);
    return element("details", { "data-at": pointer, open: Boolean(open) || given !== undefined }, element("summary", {}, label), ...children);
  }

  component(schema, label, pointer, root, kind) {
    const value = read(this.document, pointer) ?? {};
    const options = this.names[kind].map(({ name, called = name }) => element("option", { value: called, selected: [called, name].includes(value.name) }, called));
    const known = this.names[kind].find(({ name, called = name }) => [called, name].includes(value.name));
    if (kind === "loss") options.unshift(element("option", { value: "", selected: !value.name }, "that of the data"));
    if (!known && (value.name || kind !== "loss")) options.unshift(element("option", { value: value.name ?? "", selected: true }, value.name ?? "choose"));
    const select = element("select", { id: `f${pointer}/name`, "data-pointer": `${pointer}/name` }, ...options);
    select.addEventListener("change", () => {
      write(this.document, pointer, select.value ? { name: select.value } : undefined);
      this.restructured();
    });
    const parts = [element("label", { for: `f${pointer}/name` }, label), select];
    if (known) {
      parts.push(element("small", { class: "quiet" }, known.about));
      const inner = known.schema;
      const params = Object.keys(inner.properties ?? {}).map((name) => this.property(inner, name, `${pointer}/params`, inner));
      if (params.length) parts.push(element("details", { "data-at": `${pointer}/params`, open: Object.keys(value.params ?? {}).length > 0 }, element("summary", {}, "Parameters"), ...params));
    }
    if (schema.properties.grid) parts.push(this.input({ type: "object", description: 'Parameters to try: every combination, such as {"lr": [0.001, 0.01]}.' }, "grid", `${pointer}/grid`));
    return element("fieldset", { class: "component" }, element("legend", { class: "unseen" }, label), ...parts);
  }

  union(schema, label, pointer, root) {
    const key = schema.discriminator?.propertyName ?? "name";
    const choices = schema.oneOf.map((one) => this.plain(one, root));
    const nameOf = (one) => one.properties[key].const;
    const value = read(this.document, pointer);
    const chosen = choices.find((one) => nameOf(one) === value?.[key]);
    const select = element("select", { id: `f${pointer}/${key}`, "data-pointer": `${pointer}/${key}` }, element("option", { value: "" }, "default"), ...choices.map((one) => element("option", { value: nameOf(one), selected: one === chosen }, nameOf(one))));
    select.addEventListener("change", () => {
      write(this.document, pointer, select.value ? { [key]: select.value } : undefined);
      this.restructured();
    });
    const fields = chosen ? Object.keys(chosen.properties).map((name) => this.property(chosen, name, pointer, root)) : [];
    return element("div", { class: "field" }, element("label", { for: select.id }, label), select, ...fields);
  }

  list(items, label, pointer, root) {
    const values = read(this.document, pointer) ?? [];
    const rows = values.map((_, index) => {
      const remove = element("button", { type: "button", "aria-label": `Remove ${label} ${index + 1}` }, "Remove");
      remove.addEventListener("click", () => { write(this.document, `${pointer}/${index}`, undefined); this.restructured(); });
      return element("div", { class: "item" }, this.field(items, `${label} ${index + 1}`, `${pointer}/${index}`, root, true), remove);
    });
    const add = element("button", { type: "button" }, `Add to ${label}`);
    add.addEventListener("click", () => {
      const kind = this.kindOf(items, `${pointer}/0`);
      const key = items.discriminator?.propertyName;
      const first = items.oneOf && this.plain(items.oneOf[0], root);
      write(this.document, pointer, [...values, kind ? { name: this.names[kind][0].name } : first ? { [key]: first.properties[key].const } : {}]);
      this.restructured();
    });
    return element("fieldset", { "data-pointer": pointer }, element("legend", {}, label), ...rows, add);
  }

  input(schema, label, pointer, required = false) {
    const value = read(this.document, pointer);
    const id = `f${pointer}`;
    const preset = schema.default === undefined || schema.default === null ? "" : shown(schema.default, schema);
    const choices = schema.type === "boolean" ? [true, false] : schema.enum;
    const hint = [schema.description, this.bounds(schema)].filter(Boolean).join(" ");
    const shared = { id, "data-pointer": pointer, "aria-describedby": hint ? `${id}-hint` : undefined };
    const made = choices
      ? element("select", shared, element("option", { value: "" }, preset ? `${preset} (default)` : ""), ...choices.map((one) => element("option", { value: JSON.stringify(one), selected: one === value }, String(one))))
      : element("input", { ...shared, value: shown(value, schema), placeholder: preset || (required ? "needed" : ""), inputmode: ["number", "integer"].includes(schema.type) ? "decimal" : undefined, autocomplete: "off" });
    made.addEventListener(choices ? "change" : "input", () => {
      write(this.document, pointer, choices ? (made.value ? JSON.parse(made.value) : undefined) : parsed(made.value, schema));
      this.changed();
    });
    const parts = [element("label", { for: id }, label), made];
    if (hint) parts.push(element("small", { id: `${id}-hint`, class: "quiet" }, hint));
    return element("div", { class: "field" }, ...parts);
  }

  bounds(schema) {
    const signs = { minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<" };
    return Object.entries(signs).filter(([key]) => key in schema && Math.abs(schema[key]) < 1e15).map(([key, sign]) => `${sign} ${schema[key]}`).join(", ");
  }

  restructured() {
    this.show(this.schema, this.document);
    this.changed();
  }

  // errors: [{pointer, detail}]. Each is told at its field, or at the nearest above it.
  // Returns those that have no field.
  mark(errors) {
    for (const old of this.place.querySelectorAll(".field-error")) old.remove();
    for (const one of this.place.querySelectorAll("[aria-invalid]")) one.removeAttribute("aria-invalid");
    return errors.filter(({ pointer, detail }) => {
      for (let at = pointer; at; at = at.slice(0, at.lastIndexOf("/"))) {
        const field = this.place.querySelector(`[data-pointer="${CSS.escape(at)}"], [data-pointer="${CSS.escape(`${at}/name`)}"]`);
        if (!field) continue;
        field.setAttribute("aria-invalid", "true");
        field.after(element("small", { class: "field-error" }, detail));
        field.closest("details:not([open])")?.setAttribute("open", "");
        return false;
      }
      return true;
    });
  }
}
