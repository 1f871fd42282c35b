// Read a label map in JavaScript with zarrita, in Node or (with FetchStore and a URL) in a browser.
//
// npm install --prefix examples/reading && node examples/reading/with_zarrita.mjs labels.zarr chelsea.png
// (a store of encoding topk)

import { FileSystemStore } from "@zarrita/storage";
import path from "node:path";
import * as zarr from "zarrita";

const [, , folder, imageId] = process.argv;
const group = await zarr.open.v3(new FileSystemStore(path.resolve(folder)), { kind: "group" });
const about = group.attrs.labelstore;
const open = (name) => zarr.open.v3(group.resolve(name), { kind: "array" });

// Image ids are bytes, padded with zeros; the wanted one's row is found by comparing texts.
const ids = await zarr.get(await open(about.ids_array));
const width = ids.shape[1];
const text = (row) => new TextDecoder().decode(ids.data.subarray(row * width, (row + 1) * width)).replace(/\0+$/, "");
let row = 0;
while (row < ids.shape[0] && text(row) !== imageId) row += 1;
if (row === ids.shape[0]) throw new Error(`no image ${imageId} in ${folder}`);

async function read(name) {
  const array = await open(name);
  return zarr.get(array, array.shape.map((_, axis) => (axis === 0 ? zarr.slice(row, row + 1) : null)));
}
const [status, classes, gaps, range] = await Promise.all(["status", "classes", "scores", "score_range"].map(read));
if (status.data[0] !== 1) throw new Error(`${imageId} has no map`);

// Rank gaps to logits (docs/format.md), in float32 as every reader does it.
const [, ranks, height, columns] = classes.shape;
const [top, step] = range.data;
const nested = (value) =>
  Array.from({ length: ranks }, (_, k) =>
    Array.from({ length: height }, (_, y) => Array.from({ length: columns }, (_, x) => value(k, y, x))));
const at = (k, y, x) => (k * height + y) * columns + x;
const level = (k, y, x) => (k < 0 ? 0 : level(k - 1, y, x) + gaps.data[at(k, y, x)]);
const score = (k, y, x) => Math.fround(top - Math.fround(step * level(k, y, x)));

console.log(JSON.stringify({ classes: nested((k, y, x) => classes.data[at(k, y, x)]), scores: nested(score) }));
