// What is asked of the server.

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

/** An address with parameters; those that are empty are left out. */
export function address(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null && value !== false);
  const query = new URLSearchParams(given).toString();
  return query ? `${path}?${query}` : path;
}

export async function get(name, parameters = {}, signal) {
  return answered(await fetch(address(`/api/${name}`, parameters), { signal }));
}

/** The soft label of one crop. */
export async function pool(id, box, top) {
  const response = await fetch(address("/api/pool", { top }), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ids: [id], boxes: [box] }),
  });
  return (await answered(response)).labels[0];
}

export const photo = (row, side) => address("/api/photo", { row, side });
export const cells = (row) => address("/api/cells", { row });

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
