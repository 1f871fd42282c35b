// What is asked of the server.
import { link } from "/assets/address.js";

/** Thrown where the server does not answer what was asked for; its message is the server's. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function answered(response) {
  if (response.ok) return response.json();
  const said = await response.json().catch(() => null);
  throw new Refused(response.status, said?.error?.message ?? `the server answers ${response.status}`);
}

export async function get(name, parameters = {}, signal) {
  return answered(await fetch(link(`/api/${name}`, parameters), { signal }));
}

/** The soft label of one crop. */
export async function pool(id, box, top) {
  const response = await fetch(link("/api/pool", { top }), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ids: [id], boxes: [box] }),
  });
  return (await answered(response)).labels[0];
}

export const photo = (row, side) => link("/api/photo", { row, side });
export const cells = (row) => link("/api/cells", { row });

/** Asks for the last thing that was wanted, one request at a time; what was wanted meanwhile is left out. */
export function latest(ask, show) {
  let busy = false;
  let next = null;
  return async function want(...given) {
    if (busy) {
      next = given;
      return;
    }
    busy = true;
    try {
      show(await ask(...given), null);
    } catch (error) {
      show(null, error);
    } finally {
      busy = false;
    }
    if (next) {
      const now = next;
      next = null;
      want(...now);
    }
  };
}
