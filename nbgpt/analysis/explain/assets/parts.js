// Heads and MLPs are counted layer by layer, the MLP of a layer after its heads.

const partOf = (layer, head) => layer * (n_head + 1) + head;
const layerOf = (part) => Math.floor(part / (n_head + 1));
const headOf = (part) => part % (n_head + 1);
const headName = (layer, head) => `layer ${layer}, head ${head}`;
const partName = (part) => (headOf(part) === n_head ? `layer ${layerOf(part)}, MLP` : headName(layerOf(part), headOf(part)));

/** A name with its first letter large. */
const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** The heads of a grid's columns. */
const columnNames = () => [...range(n_head).map(String), "MLP"];
