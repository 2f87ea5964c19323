// What users do: mostly read one user, the popular ones far more often than the others, and now and then write.
import { send } from './requests.js';
import { zipf } from './zipf.js';

// Shares of the reads.
const LISTS = 0.05;
const DATA = 0.1;

let draw;

/** One request of the mix. */
export function visit(run, ids) {
  draw = draw || zipf(ids.length, run.skew);
  const rank = draw();
  const id = ids[rank - 1];
  const user = { body: { name: `User ${rank}`, email: `k6-${id}@example.com` }, contains: `"id":${id},` };
  if (Math.random() < run.writes) {
    return send(run, '/api/users/{id}', 'PUT', `/api/users/${id}`, user);
  }
  const kind = Math.random();
  if (kind < LISTS) return send(run, '/api/users', 'GET', `/api/users?limit=20&after=${id}`, { contains: '"users":' });
  if (kind < LISTS + DATA) {
    return send(run, '/api/data/{id}', 'GET', `/api/data/k6-${rank}`, { contains: `"id":"k6-${rank}"` });
  }
  return send(run, '/api/users/{id}', 'GET', `/api/users/${id}`, { contains: user.contains });
}
