// The description of the API, from what the server says of itself in openapi.json.

import { get, make, say } from "./elements.js";

let schemas = {};

/** A type in words. */
function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeOf))].filter((type) => type !== "null").join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}`;
  return schema.type ?? "anything";
}

/** A table of (name, type, meaning). */
function tableOf(rows) {
  const heads = ["name", "type", "meaning"].map((text) => make("th", { scope: "col" }, text));
  const body = rows.map(([name, type, meaning]) => {
    const head = make("th", { scope: "row" }, make("code", {}, name));
    return make("tr", {}, head, make("td", {}, type), make("td", {}, meaning));
  });
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body));
  return make("div", { className: "fields", tabIndex: 0, role: "region", ariaLabel: "fields" }, table);
}

/** The fields of a body, with a heading; nothing for a body without any. */
function bodyOf(title, content) {
  const schema = content?.["application/json"]?.schema;
  const { properties, required = [] } = schemas[schema?.$ref?.split("/").at(-1)] ?? {};
  if (!properties) return [];
  const rows = Object.entries(properties).map(([name, field]) => {
    const meaning = field.description ?? "";
    return [name, typeOf(field), title === "Body" && required.includes(name) ? `needed; ${meaning}` : meaning];
  });
  return [make("h3", {}, title), tableOf(rows)];
}

function routeOf(path, method, route) {
  const name = make("code", {}, `${method.toUpperCase()} ${path}`);
  const errors = Object.keys(route.responses).filter((status) => status >= 400);
  return Object.assign(make(
    "details",
    { className: "route" },
    make("summary", {}, name, ` ${route.summary ?? ""}`),
    make("p", {}, route.description ?? ""),
    ...bodyOf("Body", route.requestBody?.content),
    ...bodyOf("Answer", route.responses[200]?.content),
    make("p", { className: "muted" }, errors.length ? `Errors, as OpenAI's: ${errors.join(", ")}.` : ""),
  ), { id: `${method}${path}` });
}

async function start() {
  get("base").textContent = new URL("v1", document.baseURI).href;
  const answer = await fetch("openapi.json").catch(() => null);
  if (!answer?.ok) return say("error", "the server does not describe itself: is it running?");
  const { info, paths, components } = await answer.json();
  schemas = components.schemas;
  get("about").textContent = `${info.title} ${info.version}. ${info.description}`;
  for (const [path, methods] of Object.entries(paths))
    for (const [method, route] of Object.entries(methods)) get("routes").append(routeOf(path, method, route));
}

start();
